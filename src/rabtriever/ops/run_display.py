"""What a person sees while the stages of a run work: one live line on a terminal, a line every 30 seconds in a log."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from rabtriever.core.progress import LOG_SECONDS, ProgressLine
from rabtriever.ops.estimate import HISTORY, Estimate, in_words


class RunDisplay:
    """Shows stage, phase, and the time that is left, as a context manager around the stages of a run.

    Args:
        stages: names in the order in which they run.
        history: file with what each stage took when it last ran.
    """

    def __init__(self, stages: Sequence[str], history: Path = HISTORY) -> None:
        self._stages, self._estimate = list(stages), Estimate(stages, history)
        self._stage, self._start, self._line, self._phase = "", 0.0, None, 0
        self._console = Console()
        self._live: Live | None = None
        self._over = threading.Event()
        self._teller = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> RunDisplay:
        """Says how long the run will take, and begins to show it."""
        if not self._stages:
            return self
        count = f"{len(self._stages)} stages" if len(self._stages) > 1 else "1 stage"
        basis = "as they last took" if self._estimate.measured else "typical of the embedded data set on two cores"
        print(f"retrain: {count} to run, about {in_words(self._estimate.left())} ({basis})", flush=True)
        if self._console.is_interactive:
            streams = {"redirect_stdout": True, "redirect_stderr": Console(stderr=True).is_terminal}
            self._live = Live(
                get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True, **streams
            )
            self._live.start()
        else:
            self._teller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Takes the live line away."""
        self._over.set()
        if self._live is not None:
            self._live.stop()

    def begin(self, stage: str) -> None:
        """Shows another stage."""
        self._stage, self._start, self._line, self._phase = stage, time.monotonic(), None, 0
        if self._live is None:
            print(f"\n{self._place}", flush=True)

    def progress(self, line: ProgressLine) -> None:
        """Takes a line of the stage's progress; one of another label, or that begins anew, is a phase of its own."""
        last = self._line
        if last is None or line.label != last.label or line.done < last.done or line.elapsed < last.elapsed:
            self._phase += 1
        self._line = line

    def end(self, ran: bool) -> None:
        """Says that the stage is done.

        Args:
            ran: whether its command ran; False where DVC had nothing to do.
        """
        spent = time.monotonic() - self._start
        self._estimate.finish(self._stage, spent, self._phase, ran)
        how = f"done in {in_words(spent)}" if ran else "nothing to do"
        left = self._estimate.left()
        print(f"{self._place}: {how}" + (f", about {in_words(left)} left" if left else ""), flush=True)
        self._stage = ""

    @property
    def _place(self) -> str:
        return f"[{self._stages.index(self._stage) + 1}/{len(self._stages)}] {self._stage}"

    def _parts(self) -> tuple[str, str, str]:
        """Where the run is, what the stage is doing, and the time that is left of the run."""
        line, elapsed = self._line, time.monotonic() - self._start
        phases = max(self._estimate.phases(self._stage), self._phase)
        head = f"{self._place} · {self._phase} of {phases}" if self._phase else self._place
        doing = f"{elapsed:.0f} s"
        if line is not None:
            what = line.label.removeprefix(self._stage).strip(": -") or self._stage
            doing = str(line._replace(label=what))
        left = self._estimate.left(elapsed, line.left if line is not None else 0.0)
        return head, doing, f"whole run: about {in_words(left)} left" if left else ""

    def _tell(self) -> None:
        """Prints a line from time to time."""
        while not self._over.wait(LOG_SECONDS):
            if self._stage:
                print(" | ".join(filter(None, self._parts())), flush=True)

    def _render(self) -> RenderableType:
        """The live line."""
        if not self._stage:
            return ""
        head, doing, left = self._parts()
        row = Table.grid(padding=(0, 1))
        line = self._line
        bar = ProgressBar(total=line.total, completed=line.done, width=16) if line is not None else ""
        for column in ({"style": "bold", "no_wrap": True}, {}, {"overflow": "ellipsis"}, {"style": "dim"}):
            row.add_column(**{"no_wrap": True, **column})
        row.add_row(head, bar, doing, left)
        return row
