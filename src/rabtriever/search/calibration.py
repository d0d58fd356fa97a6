"""From the raw score of a hit to the probability that it is right, and the file of a retriever folder that says how.

Fitted on the dev queries when the index is built (`training/calibrating.py`); applying it takes two numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, write_json

CALIBRATION = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = 1 / (1 + exp(-(slope * score + intercept))).

    Attributes:
        slope: probability's log-odds for each nat of the score; above 0, so that the ranking stays.
        intercept: log-odds of a score of 0.
        threshold: the probability from which on hits of dev queries were right in `precision` of the cases; None where
            no threshold reaches that.
        precision: share of right hits that the threshold was chosen for, between 0 and 1; NaN without a choice.

    Raises:
        ValueError: the slope is not above 0, or a number is not finite or not a probability.
    """

    slope: float
    intercept: float
    threshold: float | None
    precision: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.intercept)):
            found = f"slope {self.slope} and intercept {self.intercept}"
            raise ValueError(f"calibration has {found}, expected a slope above 0 and finite numbers")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"calibration has threshold {self.threshold}, expected a probability from 0 to 1 or null")
        if not math.isnan(self.precision) and not 0 < self.precision <= 1:
            raise ValueError(f"calibration has precision {self.precision}, expected a share above 0, 1 at most")

    def probability(self, score: float) -> float:
        """The probability, 0 to 1, that a hit with this raw score is right: its `relevance_score`.

        >>> Calibration(2.0, 0.0, None, 0.9).probability(0.0)
        0.5
        """
        log_odds = self.slope * score + self.intercept
        if log_odds >= 0:
            return 1.0 / (1.0 + math.exp(-log_odds))
        odds = math.exp(log_odds)  # the form above would overflow
        return odds / (1.0 + odds)


# a score is a log-odds already; for versions registered before there was a calibration
UNCALIBRATED = Calibration(1.0, 0.0, None, math.nan)


def read_calibration(path: str | Path) -> Calibration | None:
    """The calibration in a JSON file; None where there is no such file.

    Raises:
        ArtifactMismatchError: the file is not JSON, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        return None
    found, names = read_json(path), {field.name for field in fields(Calibration)}
    if not isinstance(found, dict) or set(found) != names:
        what = f"the keys {', '.join(sorted(found)) or 'none'}" if isinstance(found, dict) else type(found).__name__
        raise _unusable(path, f"has {what}, expected {', '.join(sorted(names))}")
    for name, value in found.items():
        if not (_is_number(value) or (name == "threshold" and value is None)):
            raise _unusable(path, f"has {name} {value!r}, expected a finite number")
    try:
        return Calibration(**found)
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def write_calibration(path: str | Path, calibration: Calibration) -> None:
    """Writes a calibration as JSON.

    Raises:
        ValueError: its precision is NaN: no precision was asked for, so there is nothing to keep.
    """
    write_json(path, vars(calibration))


def _unusable(path: Path, why: str) -> ArtifactMismatchError:
    return ArtifactMismatchError(f"{path} {why}; build the index again (dvc repro --force build_index)")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
