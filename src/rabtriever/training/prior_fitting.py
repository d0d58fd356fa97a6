"""Fits the weights of the document prior on dev queries.

Where dev is cut from train, nearly every dev answer is a document that training queries name. Its judgements alone
would say that an unseen document is never right. The fit therefore reads the judgements several times and each time
treats a few documents as unseen: what the training queries tell of them is left out (cold-start dropout).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from rabtriever.core.vectors import unit
from rabtriever.models.document_prior import PriorFeatures, PriorWeights

DEPTH = 30  # documents of a dev query that the weights are fitted on
PULL = 3.0  # strength of the pull towards no prior, in judged queries, of weights in units of `SCALE`
SCALE = np.array([20.0, 20.0, 1.0])  # nats, the size that the three weights tend to have
DRAWS = 8  # readings of the judgements, each with other documents treated as unseen
UNSEEN = 0.1  # of the documents, the most that a reading treats as unseen


def fit_prior(
    rows: np.ndarray,
    scores: np.ndarray,
    query_embeddings: np.ndarray,
    features: PriorFeatures,
    grades: Sequence[Mapping[int, int]],
) -> PriorWeights:
    """The weights that the judgements of dev queries are likeliest under, added to the scores as they are.

    Args:
        rows: (Q, C) the first documents of each dev query, -1 where there are fewer.
        scores: (Q, C) of the system that gets the prior, in nats.
        query_embeddings: (Q, H) of the dev queries, encoded alone.
        features: of the documents.
        grades: of each dev query, document row -> grade.
    """
    from scipy.optimize import minimize

    given = [[float(known.get(row, 0)) for row in one] for known, one in zip(grades, rows, strict=True)]
    wanted = np.array(given).reshape(rows.shape)  # also where there is no query
    usable = wanted.sum(1) > 0
    if not usable.any():
        return PriorWeights()
    rows, base, wanted = rows[usable], scores[usable], wanted[usable] / wanted[usable].sum(1, keepdims=True)
    base = np.where(rows >= 0, base, -np.inf)
    readings = _readings(rows, _terms(rows, query_embeddings[usable], features), _unseen_share(features, grades))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = PULL * (weights @ weights), 2 * PULL * weights
        for terms in readings:
            total = base + terms @ weights
            total = total - total.max(1, keepdims=True)
            shares = np.exp(total) / np.exp(total).sum(1, keepdims=True)
            value -= (wanted * np.log(np.maximum(shares, 1e-30))).sum() / len(readings)
            gradient = gradient + np.einsum("qc,qcf->f", shares - wanted, terms) / len(readings)
        return float(value), gradient

    best = minimize(loss, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[(0.0, None)] * 3).x
    return PriorWeights(*(float(weight) for weight in best * SCALE))


def _terms(rows: np.ndarray, query_embeddings: np.ndarray, features: PriorFeatures) -> np.ndarray:
    """(Q, C, 3) the terms of the candidates in units of `SCALE`."""
    near = np.einsum("qh,qch->qc", unit(query_embeddings), features.centroids[rows])
    return np.stack([near, -features.hubness[rows], features.popularity[rows]], axis=-1) * SCALE


def _unseen_share(features: PriorFeatures, grades: Sequence[Mapping[int, int]]) -> float:
    """Share of unseen documents that dev lacks: that of the corpus, `UNSEEN` at most, less that of dev's answers."""
    unseen = features.popularity == 0
    asked = [unseen[row] for known in grades for row, grade in known.items() if grade > 0]
    return max(0.0, float(min(UNSEEN, unseen.mean()) - (np.mean(asked) if asked else 1.0)))


def _readings(rows: np.ndarray, terms: np.ndarray, share: float) -> list[np.ndarray]:
    """The terms as they are, or `DRAWS` times with centroid and popularity of some documents left out."""
    if share == 0:
        return [terms]
    drawn = np.random.default_rng(0).random((DRAWS, rows.max() + 1)) < share
    told = np.array([True, False, True])
    return [np.where(one[rows][..., None] & told, 0.0, terms) for one in drawn]
