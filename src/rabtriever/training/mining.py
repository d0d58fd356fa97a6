"""Which documents a round shows the teacher: what the current student ranks high, the positives, a few at random.

Pure functions of arrays. On-policy means that the ranking comes from the student being trained; in the first round that
is a student without a predictor yet (Rabtriever, arXiv 2604.23336, on-policy distillation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rabtriever.core.settings import bounded
from rabtriever.core.vectors import top_rows
from rabtriever.data.judgements import most, without
from rabtriever.models.document_terms import EncodedDocuments, bi_encoder_scores


@dataclass(frozen=True)
class MiningParams:
    """Section `mine` of params.yaml.

    Attributes:
        depth: documents taken from the top of the ranking.
        positives: known positives added, best grades first.
        random: documents added at random.
        margin: an unjudged candidate that the teacher scores within `margin` nats of the query's best positive, or
            above it, counts as a possible false negative and is never used as a labelled negative.
        batch_size: pairs the teacher annotates in one forward pass.
        queries: training queries annotated in a round, sampled anew each round; 0 for all.
    """

    depth: int = bounded(ge=0)
    positives: int = bounded(ge=0)
    random: int = bounded(ge=0)
    margin: float = bounded()
    batch_size: int = bounded(ge=1)
    queries: int = bounded(ge=0)


def bi_encoder_ranking(
    query_embeddings: np.ndarray, documents: EncodedDocuments, similarity: float, depth: int
) -> np.ndarray:
    """(Q, depth) document rows by what is known of (Q, H) query states without reading, best first."""
    chunks = np.array_split(query_embeddings, max(1, len(query_embeddings) // 256))
    return np.concatenate([top_rows(bi_encoder_scores(chunk, documents, similarity), depth) for chunk in chunks])


def select_candidates(
    ranking: np.ndarray,
    grades: Sequence[Mapping[int, int]],
    ignored: Sequence[frozenset[int]],
    first_copy: np.ndarray,
    params: MiningParams,
    rng: np.random.Generator,
) -> np.ndarray:
    """Candidate lists of all queries: positives, then the ranking's top, then random documents.

    No text is in a list twice, and no document that is ignored for the query.

    Args:
        ranking: (Q, depth and as many as are ignored, or more) document rows, best first.
        grades: per query, document row -> grade of its known positives.
        ignored: per query, the document rows that are never shown.
        first_copy: (N,) for each document of the corpus, the first row of the same text.
        params: how many of each.
        rng: source of the random documents.

    Returns:
        (Q, C) document rows, -1 after the last candidate of a query; C = positives + depth + random, at most the
        corpus.
    """
    width = min(params.positives + params.depth + params.random, len(first_copy))
    enough = min(width + most(ignored), len(first_copy))  # even if all but `random` are taken
    found = np.full((len(ranking), width), -1, dtype=np.int64)
    for number, (ranked, judged, left_out) in enumerate(zip(ranking, grades, ignored, strict=True)):
        chosen: dict[int, int] = {}  # by text, the document that is shown
        _add(chosen, sorted(judged, key=lambda row: (-judged[row], row)), first_copy, params.positives)
        drawn = rng.choice(len(first_copy), size=enough, replace=False).tolist()
        _add(chosen, without(ranked.tolist(), left_out, params.depth), first_copy, width)
        limit = min(len(chosen) + params.random, width)
        _add(chosen, without(drawn, left_out, enough), first_copy, limit)
        found[number, : len(chosen)] = list(chosen.values())
    return found


def _add(chosen: dict[int, int], rows: Sequence[int], first_copy: np.ndarray, limit: int) -> None:
    """Adds rows whose text is not among the chosen, until there are `limit`."""
    for row in rows:
        if len(chosen) >= limit:
            break
        chosen.setdefault(int(first_copy[row]), row)


def possible_false_negatives(
    candidates: np.ndarray, scores: np.ndarray, grades: Sequence[Mapping[int, int]], margin: float
) -> np.ndarray:
    """(Q, C) bool: unjudged candidates that the teacher puts within `margin` of the query's best positive, or above.

    Args:
        candidates: (Q, C) document rows, -1 for none.
        scores: (Q, C) teacher scores in nats.
        grades: per query, document row -> grade of its known positives.
        margin: in nats.
    """
    unsafe = np.zeros(candidates.shape, dtype=bool)
    for number, judged in enumerate(grades):
        known = np.isin(candidates[number], list(judged))
        if known.any():
            close = scores[number] >= scores[number][known].max() - margin
            unsafe[number] = close & ~known & (candidates[number] >= 0)
    return unsafe
