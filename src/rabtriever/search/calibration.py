"""Stand-in: from the raw score of a hit to the probability that it is right."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """Platt scaling: probability = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float
    threshold: float | None
    precision: float

    def probability(self, score: float) -> float:
        """The probability, 0 to 1, that a hit with this raw score is right."""
        return 0.5 * (1.0 + math.tanh(0.5 * (self.slope * score + self.intercept)))


UNCALIBRATED = Calibration(1.0, 0.0, None, math.nan)
