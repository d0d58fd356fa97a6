"""The weights of the two terms of the teacher's score, fitted on dev queries once the teacher is trained.

How far a language model's evidence can be trusted depends on the data: where every document was judged in training it
may rank better than the similarity, on documents it has never seen it may say little. One number decides, and dev
queries tell it. Neither weight exceeds what it was in training, so that scores keep their scale: the softmax over them
is what students learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.contrastive import unit
from rabtriever.metrics import score_queries, summarise
from rabtriever.mining import top_rows
from rabtriever.reranker import Reranker
from rabtriever.supervision import Supervision

RATIOS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)  # similarity to evidence, in units of what it was in training


class Weights(NamedTuple):
    """Of the evidence and of the similarity, in the teacher's score."""

    evidence: float
    similarity: float


def try_weights(
    reranker: Reranker,
    judged: Supervision,
    query_ids: Sequence[Sequence[int]],
    document_ids: Sequence[Sequence[int]],
    depth: int,
    batch_size: int,
) -> dict[Weights, float]:
    """nDCG@10 in per cent for each of the RATIOS; the reranker stays as it is.

    Args:
        reranker: a trained teacher whose score has a similarity, and an evidence of weight 1.
        judged: the dev judgements.
        query_ids: token ids of each of its query rows.
        document_ids: token ids of each document row.
        depth: documents ranked for each query, the most similar ones.
        batch_size: pairs in one forward pass.

    Raises:
        ValueError: the teacher's score has no similarity.
    """
    weight = reranker.backbone.similarity
    if weight <= 0:
        raise ValueError("the score of this teacher has no similarity whose weight could be fitted")
    cosine = (
        unit(reranker.backbone.encode(query_ids, batch_size))
        @ unit(reranker.backbone.encode(document_ids, batch_size)).T
    )  # (Q, N)
    found = top_rows(cosine, depth)  # (Q, depth)
    rows = np.arange(len(found))[:, None]
    similar = cosine[rows, found]
    pairs = np.stack([np.broadcast_to(rows, found.shape).ravel(), found.ravel()], axis=1)
    scores = np.zeros(len(pairs), dtype=np.float32)
    for part in reranker.annotate(query_ids, document_ids, pairs, batch_size, "train_teacher: dev queries"):
        scores[part.pairs] = part.scores
    evidence = scores.reshape(found.shape) - weight * similar
    tried = [Weights(min(1.0, 1.0 / ratio), weight * min(1.0, ratio)) for ratio in RATIOS]
    return {one: _ndcg(judged, found, one.evidence * evidence + one.similarity * similar) for one in tried}


def _ndcg(judged: Supervision, found: np.ndarray, scores: np.ndarray) -> float:
    names = judged.doc_ids
    qrels = {
        query_id: {names[row]: grade for row, grade in grades.items()}
        for query_id, grades in zip(judged.query_ids, judged.grades, strict=True)
    }
    run = {
        query_id: {names[row]: float(score) for row, score in zip(rows, values, strict=True)}
        for query_id, rows, values in zip(judged.query_ids, found.tolist(), scores, strict=True)
    }
    return summarise(score_queries(qrels, run))["nDCG@10"]
