"""The document prior: what training queries tell about documents, as an optional layer over any score.

It is no part of distillation. To a score of query q and document d, in nats, it adds

    query_centroid . <ĥ_q, m_d> + log_popularity . log(1 + n_d) - hubness_penalty . a_d

ĥ are unit embeddings of texts encoded alone. m_d is where the training queries judged for d lie: the direction of their
sum, by grade, less the mean of all of them, shrunk where they are few (Rocchio). n_d is how many they are. a_d says how
near d is to queries of any kind; a document that is near to all of them is a hub, and its nearness says little
(inverted softmax, Smith et al. 2017, arXiv 1702.03859). A folded index takes the layer up at no cost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.core.vectors import unit
from rabtriever.models.predictor import FoldedDocuments

BANK = 4096  # training queries that hubness is measured with
SHRINKAGE = 5.0  # judgements at which a document's centroid has half its weight
TEMPERATURE = 0.05  # of the hubness
BLOCK_CELLS = 8_000_000  # cosines held at once


class PriorFeatures(NamedTuple):
    """The terms without their weights.

    Attributes:
        centroids: (N, H) m; zero for documents that no training query is judged for.
        hubness: (N,) a, a cosine.
        popularity: (N,) log(1 + n).
    """

    centroids: np.ndarray
    hubness: np.ndarray
    popularity: np.ndarray


class PriorWeights(NamedTuple):
    """Weights of the terms, in nats; all zero leaves every score as it is."""

    query_centroid: float = 0.0
    hubness_penalty: float = 0.0
    log_popularity: float = 0.0


def prior_features(
    document_embeddings: np.ndarray, query_embeddings: np.ndarray, grades: Sequence[Mapping[int, int]], seed: int = 0
) -> PriorFeatures:
    """What the training queries tell about documents.

    Args:
        document_embeddings: (N, H), encoded alone.
        query_embeddings: (Q, H) of the training queries, encoded alone.
        grades: of each training query, document row -> grade; grades weigh a document's queries.
        seed: draws the queries that hubness is measured with, where there are more than `BANK`.
    """
    documents, queries = unit(document_embeddings), unit(query_embeddings)
    sums, counts = np.zeros_like(documents), np.zeros(len(documents), dtype=np.float32)
    for query, known in enumerate(grades):
        for row, grade in known.items():
            if grade > 0:
                sums[row] += grade * queries[query]
                counts[row] += 1
    share = (counts / (counts + SHRINKAGE))[:, None]
    centroids = share * (unit(sums) - queries.mean(0))
    drawn = np.random.default_rng(seed).permutation(len(queries))[:BANK]
    return PriorFeatures(centroids.astype(np.float32), _hubness(documents, queries[np.sort(drawn)]), np.log1p(counts))


def _hubness(documents: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """(N,) T log mean exp(cosine / T) of unit documents (N, H) over unit queries (B, H), in blocks."""
    found, block = np.empty(len(documents), dtype=np.float32), max(1, BLOCK_CELLS // len(queries))
    for start in range(0, len(documents), block):
        near = documents[start : start + block] @ queries.T / TEMPERATURE
        top = near.max(1, keepdims=True)
        found[start : start + block] = TEMPERATURE * (np.log(np.exp(near - top).mean(1)) + top[:, 0])
    return found


def prior_scores(query: np.ndarray, rows: np.ndarray, features: PriorFeatures, weights: PriorWeights) -> np.ndarray:
    """(C,) what the layer adds to the scores of a query, from its unit embedding (H,), and documents (C,), in nats."""
    return weights.query_centroid * features.centroids[rows] @ query + _bias(features, weights)[rows]


def with_prior(
    folded: FoldedDocuments, features: PriorFeatures, weights: PriorWeights, similarity: float
) -> FoldedDocuments:
    """Folded documents with the layer in them.

    Args:
        folded: of a predictor whose score has the cosine; its last H products are the unit embeddings.
        features: of the same documents.
        weights: of the terms.
        similarity: weight of the cosine in the score, in nats.

    Raises:
        ValueError: the score has no cosine that the centroids could be added to.
    """
    if similarity <= 0:
        raise ValueError(f"the score's weight of the cosine is {similarity:g}: the document prior needs one above 0")
    products, width = folded.products.clone(), features.centroids.shape[1]
    centroids = products.new_tensor(weights.query_centroid / similarity * features.centroids)
    products[:, -width:] += centroids
    return folded._replace(products=products, bias=folded.bias + folded.bias.new_tensor(_bias(features, weights)))


def _bias(features: PriorFeatures, weights: PriorWeights) -> np.ndarray:
    """(N,) the terms that are the same for all queries."""
    return weights.log_popularity * features.popularity - weights.hubness_penalty * features.hubness
