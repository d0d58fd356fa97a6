"""Stage mine@r: what the student of round r-1 ranks high, shown to the teacher.

In round 0 the student is what it is before any training: the terms of its score that need no predictor. Where there are
none, as in the paper, BM25 stands in.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from rabtriever.core.artifacts import check_parent, read_manifest
from rabtriever.core.seeding import SeedParams
from rabtriever.core.stages import Paths, Tracker
from rabtriever.core.vectors import top_rows
from rabtriever.data.judgements import most
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.document_terms import EncodedDocuments, score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.search.bm25 import Bm25
from rabtriever.search.scorer import Scorer
from rabtriever.training.embeddings import read_documents_encoded
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.mining import MiningParams, bi_encoder_ranking, select_candidates
from rabtriever.training.model_io import open_teacher
from rabtriever.training.student_io import load_student
from rabtriever.training.teacher_labels import label_candidates, save_candidates


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    mine: MiningParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker, round: int) -> str:
    """The hash of data/candidates/<round>, after ranking, selecting and annotating."""
    params = sections.mine
    prompt_params = sections.prompt
    seed = sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    opened = open_teacher(paths.teacher, prompt_params, data)
    model, reader, prefix, prompt, teacher = opened
    stored = read_manifest(paths.embeddings, "embeddings")
    check_parent(stored, "teacher", teacher.hash)
    documents = read_documents_encoded(paths.embeddings, len(dataset.corpus), score_weights(model))
    inputs = training_inputs(dataset, prompt)
    rng = np.random.default_rng((seed, round))
    count = len(inputs.query_ids)
    kept = np.sort(rng.choice(count, size=min(params.queries or count, count), replace=False))
    query_embeddings = opened.encoder.encode(
        [inputs.query_ids[row] for row in kept], params.batch_size, f"mine@{round}: queries"
    )
    parents = {"data": data, "teacher": teacher.hash}
    ignored = [inputs.judgements.ignored[row] for row in kept]
    depth = params.depth + most(ignored)
    if round == 0:
        ranking = _before_training(inputs, kept, query_embeddings, documents, score_weights(model).similarity, depth)
    else:
        scorer, manifest = load_student(paths.student / str(round - 1), opened.encoder, prompt, teacher.hash)
        states = scorer.encode([inputs.dataset.queries[inputs.judgements.query_ids[row]] for row in kept])
        ranking = _rank(scorer, states, documents, depth)
        parents["student"] = manifest.hash
    grades = [inputs.judgements.grades[row] for row in kept]
    candidates = select_candidates(ranking, grades, ignored, inputs.judgements.first_copy, params, rng)
    teacher_at_work, label = Reranker(model, prompt, reader, prefix), f"mine@{round}: teacher"
    found = label_candidates(teacher_at_work, inputs, kept, candidates, params, label, documents)
    tracker.log_metrics(found.facts)
    target = paths.candidates / str(round)
    save_candidates(target, found, query_embeddings, parents)
    facts = ", ".join(f"{name} {value:g}" for name, value in found.facts.items())
    print(f"mine@{round}: {facts}")
    return read_manifest(target, "candidates", verify=False).hash


def _before_training(
    inputs: TrainingInputs,
    kept: np.ndarray,
    query_embeddings: np.ndarray,
    documents: EncodedDocuments,
    similarity: float,
    depth: int,
) -> np.ndarray:
    """What a student without a predictor ranks by: what is known of the states alone, or BM25 where that is nothing."""
    if similarity > 0:
        return bi_encoder_ranking(query_embeddings, documents, similarity, depth)
    bm25 = Bm25([document.contents for document in inputs.dataset.corpus.values()])
    texts = [inputs.dataset.queries[inputs.judgements.query_ids[row]] for row in kept]
    return bm25.rank(texts, max(depth, 1))[0]


def _rank(scorer: Scorer, states: torch.Tensor, documents: EncodedDocuments, depth: int) -> np.ndarray:
    score = scorer.against(documents)
    return np.concatenate([top_rows(score(chunk), depth) for chunk in states.split(256)])
