"""Progress that reads well on a terminal, in a log file, and to the program that started this one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeVar

T = TypeVar("T")
LOG_SECONDS = 30.0
TERMINAL_SECONDS = 0.2
EVERY = "RABTRIEVER_PROGRESS_SECONDS"  # set by a program that reads the lines and shows them in its own way
_LINE = re.compile(r"^(?P<label>.+): (?P<done>\d+)/(?P<total>\d+) \| (?P<elapsed>\d+) s, about (?P<left>\d+) s left")


class ProgressLine(NamedTuple):
    """One line of progress: what is done, steps done and in all, seconds spent and left, and a note such as a loss."""

    label: str
    done: int
    total: int
    elapsed: float
    left: float
    note: str = ""

    def __str__(self) -> str:
        """The line as it is printed.

        >>> str(ProgressLine("train_teacher", 230, 280, 113, 24, "loss 3.034"))
        'train_teacher: 230/280 | 113 s, about 24 s left | loss 3.034'
        """
        note = f" | {self.note}" if self.note else ""
        times = f"{self.elapsed:.0f} s, about {self.left:.0f} s left"
        return f"{self.label}: {self.done}/{self.total} | {times}{note}"

    @classmethod
    def parse(cls, text: str) -> ProgressLine | None:
        """The parts of a printed line; None for any other text.

        >>> ProgressLine.parse("mine: teacher: 5/9 | 3 s, about 2 s left").label
        'mine: teacher'
        """
        found = _LINE.match(text)
        if found is None:
            return None
        note = text[found.end() :].strip().removeprefix("| ")
        return cls(
            found["label"], int(found["done"]), int(found["total"]), int(found["elapsed"]), int(found["left"]), note
        )


class Progress:
    """Counts steps on standard error: one line rewritten in place on a terminal, one every 30 seconds in a log.

    Args:
        label: what is being done.
        total: number of steps.
        done: steps done before, when a run resumes.
    """

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done = label, total, done
        self._start = self._last = time.monotonic()
        self._first = done
        self._read = EVERY in os.environ
        self._in_place = not self._read and sys.stderr.isatty()
        self._seconds = TERMINAL_SECONDS if self._in_place else float(os.environ.get(EVERY, LOG_SECONDS))

    def advance(self, note: str = "", by: int = 1) -> None:
        """Counts `by` steps; `note` is shown beside them."""
        self.done += by
        if time.monotonic() - self._last >= self._seconds:
            self._last = time.monotonic()
            self._print(note)

    def close(self, note: str = "") -> None:
        """Prints the last line when the work took longer than a moment."""
        if self._read or time.monotonic() - self._start >= 1.0:
            self._print(note, end=True)

    def _print(self, note: str, end: bool = False) -> None:
        elapsed = time.monotonic() - self._start
        steps = max(self.done - self._first, 1)
        left = elapsed / steps * (self.total - self.done)
        _show(str(ProgressLine(self.label, self.done, self.total, elapsed, left, note)), self._in_place, end)


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


@contextlib.contextmanager
def at_work(label: str) -> Iterator[None]:
    """Tells every 30 seconds, on a terminal every second, that a block whose steps nobody counts still runs.

    Args:
        label: what the block does.
    """
    if EVERY in os.environ:  # whoever reads this program's lines tells how long it has been running
        yield
        return
    start, in_place, over = time.monotonic(), sys.stderr.isatty(), threading.Event()

    def tell() -> None:
        while not over.wait(1.0 if in_place else LOG_SECONDS):
            _show(f"{label} | {time.monotonic() - start:.0f} s", in_place)

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        if in_place:
            _show("", in_place=True)


def _show(text: str, in_place: bool, end: bool = False) -> None:
    """Prints a line to standard error; in place, over the one before, and so that whatever comes next is over it."""
    if in_place:
        text = text[: shutil.get_terminal_size().columns - 1] + "\x1b[K"
    print(text, end="\r" if in_place and not end else "\n", file=sys.stderr, flush=True)
