"""The order in which the trials of a study are run, as many side by side as there are workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait

from research.definition import Study, Trial
from research.finished import estimate, read_results

# definition, trial, whether to measure all of it here, whether to mark its lines; returns why it failed
Run = Callable[[Study, Trial, bool, bool], str | None]


class Scheduler:
    """Which trial comes next, which are being run, and what failed of those before.

    Args:
        definition: the study.
        todo: trials to run, in order.
        afresh: whether all of each is measured here, also what others have measured.
        run: runs a trial, see `research.study.run_one`.

    Attributes:
        workers: how many are run side by side.
        failed: why, by the name of the trial.
    """

    def __init__(self, definition: Study, todo: Sequence[Trial], afresh: bool, run: Run) -> None:
        self._run = run
        self.workers = max(1, min(definition.workers, len(todo)))
        self.failed: dict[str, str] = {}
        self._definition, self._count = definition, len(todo)
        self._whole = set(todo) if afresh else {one.base for one in todo if one.ablation}
        self._waiting = list(todo)
        self._running: dict[Future[str | None], tuple[Trial, str, float]] = {}

    def left(self) -> bool:
        """Whether a trial waits or is being run."""
        return bool(self._waiting or self._running)

    def start(self, executor: Executor) -> bool:
        """Starts the next trial, unless all workers are busy or what is left waits for the trials they are at."""
        busy = {one for one, _, _ in self._running.values()}
        ready = [one for one in self._waiting if not {one.base} & (busy | set(self._waiting) - {one})]
        if len(busy) >= self.workers or not ready:
            return False
        one, start = ready[0], time.monotonic()
        finished, _ = read_results(self._definition)
        total = sum(estimate(self._definition, other, finished) for other in self._waiting) / self.workers
        self._waiting.remove(one)
        label = f"[{self._count - len(self._waiting)}/{self._count}] {one}"
        guess = _time(estimate(self._definition, one, finished))
        print(f"\n{label}: about {guess}; with all that follow about {_time(total)}", flush=True)
        if str(one.base) in self.failed:
            self._ended(one, label, start, "the trial that it starts from failed")
        else:
            try:
                future = executor.submit(self._run, self._definition, one, one in self._whole, self.workers > 1)
            except BrokenExecutor:
                self._killed(one, label, start)
                return False
            self._running[future] = one, label, start
        return True

    def finish(self) -> None:
        """Waits until a trial that is being run ends."""
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            ended = self._running.pop(future)
            try:
                self._ended(*ended, future.result())
            except BrokenExecutor:
                self._killed(*ended)

    def _killed(self, one: Trial, label: str, start: float) -> None:
        """A process is gone, and all others with it; nobody can tell which of those side by side it was."""
        from research.trial import record_failure

        error = "a process has ended, as happens where memory runs out; fewer workers need less"
        record_failure(self._definition, one, ChildProcessError(error))
        self._waiting.clear()  # nobody is left to do them; the next run does
        self._ended(one, label, start, error)

    def _ended(self, one: Trial, label: str, start: float, error: str | None) -> None:
        if error is not None:
            self.failed[str(one)] = error
        outcome = "done" if error is None else f"failed: {error}"
        print(f"{label}: {outcome} ({_time(time.monotonic() - start)})", flush=True)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
