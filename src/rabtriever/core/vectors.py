"""The best of many scores, without sorting all of them."""

from __future__ import annotations

import numpy as np


def top_rows(scores: np.ndarray, depth: int) -> np.ndarray:
    """(Q, depth) document rows of the highest scores, best first; ties go to the lower row.

    >>> top_rows(np.array([[0.1, 0.9, 0.9]]), 2).tolist()
    [[1, 2]]
    """
    depth = min(depth, scores.shape[1])
    found = np.empty((len(scores), depth), dtype=np.int64)
    for row, best in zip(scores, found, strict=True):
        best[:] = _top(row, depth)
    return found


def _top(scores: np.ndarray, depth: int) -> np.ndarray:
    """Rows of one query's `depth` highest scores, best first; of a large corpus only those are sorted."""
    costs = -scores
    most = np.partition(costs, depth - 1)[depth - 1] if 0 < depth < len(costs) else np.nan
    if np.isnan(most):
        return np.argsort(costs, kind="stable")[:depth]
    within = np.flatnonzero(costs < most)
    rows = np.concatenate([within, np.flatnonzero(costs == most)[: depth - len(within)]])
    return rows[np.argsort(costs[rows], kind="stable")]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows divided by their Euclidean length; zero rows stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
