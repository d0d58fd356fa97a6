"""Stage mine@r: what the student of round r-1 ranks high, shown to the teacher.

In round 0 the student is what it is before any training: the terms of its score that need no predictor. Where there are
none, as in the paper, BM25 stands in.

Run as `python -m flows.mine_candidates --round R`.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from prefect import flow

from flows.common import CANDIDATES, EMBEDDINGS, PARAMS, PREPARED, STUDENT, TEACHER, main
from rabtriever.annotation import annotate_candidates, save_candidates
from rabtriever.artifacts import check_parent, read_manifest
from rabtriever.distilled import load_student
from rabtriever.document_terms import EncodedDocuments
from rabtriever.embeddings import read_documents_encoded
from rabtriever.inputs import TrainingInputs, open_teacher, prepared_data, training_inputs
from rabtriever.lexical import Bm25
from rabtriever.mining import MiningParams, known_ranking, select_candidates
from rabtriever.params import load_params
from rabtriever.prompt import PromptParams
from rabtriever.ranking import top_rows
from rabtriever.reranker import Reranker
from rabtriever.scorer import Scorer
from rabtriever.seeding import SeedParams
from rabtriever.tracking import stage_run


@flow(name="mine")
def mine(round: int) -> str:
    """The hash of data/candidates/<round>, after ranking, selecting and annotating."""
    params = load_params(MiningParams, "mine", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    dataset, data = prepared_data(PREPARED)
    with stage_run(f"mine-{round}", params) as run:
        opened = open_teacher(TEACHER, prompt_params, data)
        model, reader, prefix, prompt, teacher = opened
        stored = read_manifest(EMBEDDINGS, "embeddings")
        check_parent(stored, "teacher", teacher.hash)
        documents = read_documents_encoded(EMBEDDINGS, len(dataset.corpus), model.weights)
        inputs = training_inputs(dataset, prompt)
        rng = np.random.default_rng((seed, round))
        count = len(inputs.query_ids)
        kept = np.sort(rng.choice(count, size=min(params.queries or count, count), replace=False))
        query_states = opened.encoder.encode(
            [inputs.query_ids[row] for row in kept], params.batch_size, f"mine@{round}: queries"
        )
        parents = {"data": data, "teacher": teacher.hash}
        if round == 0:
            ranking = _before_training(inputs, kept, query_states, documents, model.weights.similarity, params.depth)
        else:
            scorer, manifest = load_student(STUDENT / str(round - 1), opened.encoder, prompt, teacher.hash)
            states = scorer.encode([inputs.dataset.queries[inputs.supervision.query_ids[row]] for row in kept])
            ranking = _rank(scorer, states, documents, params.depth)
            parents["student"] = manifest.hash
        grades = [inputs.supervision.grades[row] for row in kept]
        candidates = select_candidates(ranking, grades, len(dataset.corpus), params, rng)
        teacher_at_work, label = Reranker(model, prompt, reader, prefix), f"mine@{round}: teacher"
        found = annotate_candidates(teacher_at_work, inputs, kept, candidates, params, label, documents)
        run.log_metrics(found.facts)
        target = CANDIDATES / str(round)
        save_candidates(target, found, query_states, parents)
    facts = ", ".join(f"{name} {value:g}" for name, value in found.facts.items())
    print(f"mine@{round}: {facts}")
    return read_manifest(target, "candidates", verify=False).hash


def _before_training(
    inputs: TrainingInputs,
    kept: np.ndarray,
    query_states: np.ndarray,
    documents: EncodedDocuments,
    similarity: float,
    depth: int,
) -> np.ndarray:
    """What a student without a predictor ranks by: what is known of the states alone, or BM25 where that is nothing."""
    if similarity > 0:
        return known_ranking(query_states, documents, similarity, depth)
    bm25 = Bm25([document.contents for document in inputs.dataset.corpus.values()])
    texts = [inputs.dataset.queries[inputs.supervision.query_ids[row]] for row in kept]
    return bm25.rank(texts, max(depth, 1))[0]


def _rank(scorer: Scorer, states: torch.Tensor, documents: EncodedDocuments, depth: int) -> np.ndarray:
    score = scorer.against(documents)
    return np.concatenate([top_rows(score(chunk), depth) for chunk in states.split(256)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.mine_candidates", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--round",
        type=int,
        required=True,
        help="number of the round; a round after 0 goes on from the student of the one before",
    )
    arguments = parser.parse_args()
    main(mine, round=arguments.round)
