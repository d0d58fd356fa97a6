"""Progress that reads well on a terminal and in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator
from typing import TypeVar

T = TypeVar("T")
LOG_SECONDS = 10.0


class Progress:
    """A tqdm bar on a terminal; elsewhere one line every ten seconds and one at the end.

    Args:
        label: what is being done.
        total: number of steps.
        done: steps done before, when a run resumes.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._start = self._last = time.monotonic()
        self._first = done
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, dynamic_ncols=True)

    def advance(self, note: str = "", by: int = 1) -> None:
        """Counts `by` steps; `note` is shown beside them."""
        self.done += by
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(by)
        elif time.monotonic() - self._last >= LOG_SECONDS:
            self._last = time.monotonic()
            self._print(note)

    def close(self, note: str = "") -> None:
        """Ends the bar, or prints the last line when it took longer than a moment."""
        if self._bar is not None:
            self._bar.close()
        elif time.monotonic() - self._start >= 1.0:
            self._print(note)

    def _print(self, note: str) -> None:
        elapsed = time.monotonic() - self._start
        steps = max(self.done - self._first, 1)
        left = elapsed / steps * (self.total - self.done)
        extra = f" | {note}" if note else ""
        print(
            f"{self.label}: {self.done}/{self.total} | {elapsed:.0f} s, about {left:.0f} s left{extra}",
            file=sys.stderr,
            flush=True,
        )


def track(items: Collection[T], label: str | None) -> Iterator[T]:
    """Iterates with progress under `label`; silently when it is None."""
    if label is None:
        yield from items
        return
    progress = Progress(label, len(items))
    for item in items:
        yield item
        progress.advance()
    progress.close()
