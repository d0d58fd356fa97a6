"""Polishing: the states encoded alone learn what the teacher says when it reads.

A teacher's score knows more than the similarity of its states: the yes/no logit, and what the training queries tell. A
bi-encoder distilled from that score takes much of it over into its states. The student compares the teacher's states,
so the teacher gets such states too, distilled from its own score, and the student contains that bi-encoder. What reads
stays as it is, with the weights that read documents for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rabtriever.core.settings import bounded
from rabtriever.data.judgements import most
from rabtriever.models.document_terms import encoded_documents, remember, score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.training.distilled_biencoder import DistilledBiencoderParams
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.mining import MiningParams, bi_encoder_ranking, select_candidates
from rabtriever.training.teacher_labels import TeacherLabels, label_candidates

POSITIVES = 3
BATCH = 256  # pairs of one forward pass


@dataclass(frozen=True)
class PolishParams(DistilledBiencoderParams):
    """Section `polish` of params.yaml.

    Attributes:
        steps: 0 leaves the states as they are.
        pool: training queries whose candidates the teacher scores for it; 0 for all.
        depth: of those a query ranks highest by what is known without reading.
        random: documents added at random.
        start_share: of the states as they were, in the average of weights that it ends with.
    """

    pool: int = bounded(ge=0)
    depth: int = bounded(ge=1)
    random: int = bounded(ge=0)


def polishing_candidates(reranker: Reranker, inputs: TrainingInputs, params: PolishParams, seed: int) -> TeacherLabels:
    """Candidates of training queries with the teacher's scores.

    Args:
        reranker: the teacher, with the weights of its score fitted.
        inputs: training data.
        params: numbers.
        seed: draws the queries and the random documents.
    """
    rng, backbone = np.random.default_rng((seed, 1)), reranker.backbone
    count = len(inputs.query_ids)
    states = backbone.encode(inputs.query_ids, BATCH)
    memory = remember(states, inputs.judgements.grades)
    documents = encoded_documents(backbone.encode(inputs.document_ids, BATCH), score_weights(backbone), memory)
    kept = np.sort(rng.choice(count, size=min(params.pool or count, count), replace=False))
    ignored = [inputs.judgements.ignored[row] for row in kept]
    depth = params.depth + most(ignored)
    ranking = bi_encoder_ranking(states[kept], documents, score_weights(backbone).similarity, depth)
    how = MiningParams(params.depth, POSITIVES, params.random, margin=0.0, batch_size=BATCH, queries=params.pool)
    grades = [inputs.judgements.grades[row] for row in kept]
    candidates = select_candidates(ranking, grades, ignored, inputs.judgements.first_copy, how, rng)
    return label_candidates(reranker, inputs, kept, candidates, how, "train_teacher: polishing", documents)
