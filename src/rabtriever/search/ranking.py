"""The best documents of one query, among those that are allowed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rabtriever.core.vectors import top_rows


class Ranking(NamedTuple):
    """Document rows and their scores, both (k,), best first."""

    rows: np.ndarray
    scores: np.ndarray


def ranking(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Ranking:
    """The k best rows of one query's scores; fewer where fewer are allowed. Ties go to the lower row.

    Args:
        scores: (N,).
        k: rows wanted.
        allowed: (N,) whether a row may be among them; None allows all.

    >>> ranking(np.array([3.0, 1.0, 2.0]), 2, np.array([False, True, True])).rows.tolist()
    [2, 1]
    """
    if allowed is None:
        rows = top_rows(scores[None], k)[0]
    else:
        among = np.flatnonzero(allowed)
        rows = among[top_rows(scores[None, among], k)[0]]
    return Ranking(rows, scores[rows])


def proposals_wanted(depth: int, allowed: np.ndarray | None) -> int:
    """How many documents a shortlist has to propose, so that as a rule `depth` of them are allowed.

    Args:
        depth: proposals that are enough where all are allowed.
        allowed: (N,) whether a row may be proposed; None allows all.
    """
    if allowed is None:
        return depth
    count = max(1, int(allowed.sum()))
    masked = len(allowed) - count
    return depth + min(masked, 2 * depth * masked // count)  # twice the mean: a filter and a query may be at odds
