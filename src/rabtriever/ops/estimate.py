"""How long the stages of a run take: what they took last time, or typically, refined as they finish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, write_json

HISTORY = Path(".cache/stage_seconds.json")
_ENOUGH = 10.0  # expected seconds of finished stages, from which on they tell how fast this run is


class Known(NamedTuple):
    """What is known of a stage: its seconds, and the number of its phases (each has a progress of its own)."""

    seconds: float
    phases: int


# the embedded data set with the shipped settings, on two cores
TYPICAL = {
    "prepare": Known(8, 0),
    "train_biencoder": Known(120, 1),
    "train_teacher": Known(90, 2),
    "mine": Known(25, 3),
    "distill": Known(25, 1),
    "build_index": Known(6, 0),
    "evaluate": Known(25, 6),
    "register": Known(5, 0),
}


class Estimate:
    """Seconds that a run will still take.

    Args:
        stages: names in the order in which they run.
        history: file with what each stage took when it last ran.
    """

    def __init__(self, stages: Sequence[str], history: Path = HISTORY) -> None:
        self._history = history
        self._past = {name: Known(*values) for name, values in _read(history).items()}
        self._known = {stage: self._past.get(stage) or TYPICAL.get(stage) for stage in stages}
        self._waiting = list(stages)
        self._spent = self._expected = 0.0

    @property
    def measured(self) -> bool:
        """Whether all stages have run before in this folder."""
        return all(stage in self._past for stage in self._known)

    def phases(self, stage: str) -> int:
        """Phases of a stage; 0 where nothing is known of it."""
        known = self._known[stage]
        return 0 if known is None else known.phases

    def finish(self, stage: str, seconds: float, phases: int, ran: bool) -> None:
        """Takes a stage for done, and keeps what it took for the next run.

        Args:
            stage: the first of those that are not done.
            seconds: what it took.
            phases: how many it had.
            ran: whether its command ran; otherwise it says nothing on the others.
        """
        self._waiting.remove(stage)
        if not ran:
            return
        if (known := self._known[stage]) is not None:
            self._spent += seconds
            self._expected += known.seconds
        self._past[stage] = Known(round(seconds, 1), phases)
        write_json(self._history, self._past)

    def left(self, elapsed: float = 0.0, phase_left: float = 0.0) -> float:
        """Seconds until the last stage is done; a stage of which nothing is known counts nothing.

        Args:
            elapsed: what the first stage that is not done has taken so far.
            phase_left: what its present phase says it will still take.
        """
        scale = self._spent / self._expected if self._expected >= _ENOUGH else 1.0
        expected = [scale * known.seconds if (known := self._known[stage]) else 0.0 for stage in self._waiting]
        return max(expected[0] - elapsed, phase_left, 0.0) + sum(expected[1:]) if expected else 0.0


def _read(history: Path) -> dict[str, list[float]]:
    """The file's content; nothing of a file that is absent or that somebody has damaged."""
    try:
        found = read_json(history)
        return {name: [float(seconds), int(phases)] for name, (seconds, phases) in found.items()}
    except (OSError, ArtifactMismatchError, ValueError, TypeError, AttributeError):
        return {}


def in_words(seconds: float) -> str:
    """A duration as a person says it.

    >>> in_words(42), in_words(100), in_words(1500), in_words(9000)
    ('42 s', '1 min 40 s', '25 min', '2 h 30 min')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 600:
        return f"{seconds // 60} min {seconds % 60} s" if seconds % 60 else f"{seconds // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
