"""Fits the calibration of a retriever on judged hits: Platt scaling, and a threshold for a wanted precision.

Platt and not isotonic regression: it keeps the ranking strictly and takes two numbers. `benchmarks/abstention.py`
compares their Brier score and log loss on held-out queries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rabtriever.data.beir_io import Qrels, Run
from rabtriever.search.calibration import Calibration

DEPTH = 10  # hits of a query that count: what a user looks at
FEWEST_HITS = 20  # at a threshold; below, one hit more or less moves the precision by more than 5 points
_DECIMALS = 6  # kept of the fit: more are the solver's noise


class JudgedHits(NamedTuple):
    """Hits of several queries, and whether they are right.

    Attributes:
        scores: (N,) raw scores.
        right: (N,) whether the document has a grade of 1 or more; a document that is not judged is not right.
        queries: (N,) number of the query, from 0.
    """

    scores: np.ndarray
    right: np.ndarray
    queries: np.ndarray


class Fit(NamedTuple):
    """A calibration, or why there is none; one of the two is None."""

    calibration: Calibration | None
    missing: str | None


def judged_hits(run: Run, qrels: Qrels, depth: int = DEPTH) -> JudgedHits:
    """The first `depth` hits of every judged query of a run, best first, query by query."""
    scores, right, queries = [], [], []
    for number, (query_id, grades) in enumerate(qrels.items()):
        best = sorted(run.get(query_id, {}).items(), key=lambda hit: (-hit[1], hit[0]))[:depth]
        scores += [score for _, score in best]
        right += [grades.get(doc_id, 0) >= 1 for doc_id, _ in best]
        queries += [number] * len(best)
    return JudgedHits(np.array(scores, dtype=float), np.array(right, dtype=bool), np.array(queries, dtype=int))


def fit_calibration(hits: JudgedHits, precision: float) -> Fit:
    """The calibration of judged hits, by logistic regression on the score (Platt 1999).

    Its default penalty keeps the slope finite where right and wrong hits do not overlap.

    Args:
        hits: of queries that nothing was trained on.
        precision: share of right hits wanted at the threshold.
    """
    right = int(hits.right.sum())
    if right in (0, len(hits.right)):
        return Fit(None, f"{right} of {len(hits.right)} hits of dev queries are right, expected some but not all")
    slope, intercept = _platt(hits)
    if slope <= 0:
        return Fit(None, f"a higher score does not make a hit of a dev query likelier to be right (slope {slope:.3g})")
    plain = Calibration(slope, intercept, None, precision)
    score = precision_threshold(hits, precision)
    return Fit(plain if score is None else Calibration(slope, intercept, plain.probability(score), precision), None)


def _platt(hits: JudgedHits) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    # second-order: it converges to the last digits, whatever the scale of the scores
    model = LogisticRegression(solver="newton-cholesky").fit(hits.scores[:, None], hits.right)
    return round(float(model.coef_[0, 0]), _DECIMALS), round(float(model.intercept_[0]), _DECIMALS)


def precision_threshold(hits: JudgedHits, precision: float, fewest: int = FEWEST_HITS) -> float | None:
    """The smallest score such that of the hits from it on at least the share `precision` is right.

    Args:
        hits: judged hits.
        precision: the wanted share.
        fewest: hits there must be from the score on; fewer say too little of a share.

    Returns:
        The score, or None where no score has that many hits with that share.
    """
    order = np.argsort(-hits.scores, kind="stable")
    scores, count = hits.scores[order], np.arange(1, len(order) + 1)
    share = np.cumsum(hits.right[order]) / count
    last_of_equal = np.append(scores[1:] < scores[:-1], True)
    reached = np.flatnonzero((share >= precision) & (count >= fewest) & last_of_equal)
    return float(scores[reached[-1]]) if len(reached) else None
