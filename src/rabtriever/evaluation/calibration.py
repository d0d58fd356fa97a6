"""How far a retriever's calibrated scores hold on queries that they were not fitted on."""

from __future__ import annotations

from typing import Any

import numpy as np

from rabtriever.search.calibration import Calibration
from rabtriever.training.calibrating import JudgedHits

BINS = 10


def calibration_report(calibration: Calibration, hits: JudgedHits) -> dict[str, Any]:
    """What evaluation.json says of a calibration; all shares and probabilities are from 0 to 1.

    Args:
        calibration: fitted on other queries.
        hits: of the test queries.

    Returns:
        `hits` counted; `brier` score and `expected_calibration_error`; `threshold` and `wanted_precision` as they were
        chosen; `precision` of the hits from the threshold on and share of queries `answered` by such a hit, None where
        there is none; and `bins` of equal width with their hits, mean probability and share of right ones.
    """
    probability = np.array([calibration.probability(score) for score in hits.scores])
    bins = _bins(probability, hits.right)
    gaps = [one["hits"] * abs(one["probability"] - one["right"]) for one in bins]
    return {
        "hits": len(probability),
        "brier": round(float(np.mean((probability - hits.right) ** 2)), 5),
        "expected_calibration_error": round(float(sum(gaps)) / len(probability), 5),
        "threshold": calibration.threshold,
        "wanted_precision": calibration.precision,
        **_at_threshold(calibration.threshold, probability, hits),
        "bins": bins,
    }


def _at_threshold(threshold: float | None, probability: np.ndarray, hits: JudgedHits) -> dict[str, float | None]:
    if threshold is None:
        return {"precision": None, "answered": None}
    kept = probability >= threshold
    answered = len(np.unique(hits.queries[kept])) / len(np.unique(hits.queries))
    precision = round(float(hits.right[kept].mean()), 4) if kept.any() else None
    return {"precision": precision, "answered": round(answered, 4)}


def _bins(probability: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """The bins that hold a hit."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [
        {
            "from": number / BINS,
            "to": (number + 1) / BINS,
            "hits": int((place == number).sum()),
            "probability": round(float(probability[place == number].mean()), 5),
            "right": round(float(right[place == number].mean()), 5),
        }
        for number in np.unique(place).tolist()
    ]
