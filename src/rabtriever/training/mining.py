"""Which documents the teacher is shown: what the student ranks high, the positives, a few at random.

Pure functions of arrays. On-policy means that the ranking comes from the student itself, as it is before its predictor
has learnt anything (Rabtriever, arXiv 2604.23336, on-policy distillation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rabtriever.core.settings import bounded
from rabtriever.core.vectors import top_rows, unit
from rabtriever.data.judgements import most, without


@dataclass(frozen=True)
class MiningParams:
    """Section `mine` of params.yaml.

    Attributes:
        depth: documents taken from the top of the ranking.
        positives: known positives added, best grades first.
        random: documents added at random.
        batch_size: pairs that the teacher reads in one forward pass.
        queries: training queries whose candidates are labelled, drawn at random; 0 for all.
    """

    depth: int = bounded(ge=0)
    positives: int = bounded(ge=0)
    random: int = bounded(ge=0)
    batch_size: int = bounded(ge=1)
    queries: int = bounded(ge=0)


def bi_encoder_ranking(query_embeddings: np.ndarray, document_embeddings: np.ndarray, depth: int) -> np.ndarray:
    """(Q, depth) document rows by the cosine of queries (Q, H) and documents (N, H) encoded alone, best first."""
    queries, documents = unit(query_embeddings), unit(document_embeddings)
    chunks = np.array_split(queries, max(1, len(queries) // 256))
    return np.concatenate([top_rows(chunk @ documents.T, depth) for chunk in chunks])


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
