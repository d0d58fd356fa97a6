"""Stage mine: what the student ranks high, shown to the teacher.

The student ranks before it is trained, by the term of its score that needs no predictor: the bi-encoder's cosine.
Where the score has no such term, as in the paper, BM25 stands in.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

import numpy as np

from rabtriever.core.artifacts import atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.core.seeding import SeedParams
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data.judgements import most
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.reranker import Reranker
from rabtriever.search.bm25 import Bm25
from rabtriever.training.embeddings import copy_shards, read_embeddings, write_shards
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.mining import MiningParams, bi_encoder_ranking, select_candidates
from rabtriever.training.model_io import open_model
from rabtriever.training.teacher_labels import label_candidates, save_candidates
from rabtriever.training.trainer import checkpoint_folder


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    mine: MiningParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of data/candidates, after encoding the corpus, ranking, selecting and labelling."""
    params, seed = sections.mine, sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    encoder, _, biencoder = open_model(paths.biencoder, "biencoder", sections.prompt, data)
    model, prompt, teacher = open_model(paths.teacher, "teacher", sections.prompt, data)
    check_parent(teacher, "biencoder", biencoder.hash)
    inputs = training_inputs(dataset, prompt)
    parents = {"data": data, "biencoder": biencoder.hash}
    documents = _encode_corpus(encoder, inputs, paths, parents)
    rng, count = np.random.default_rng(seed), len(inputs.query_ids)
    kept = np.sort(rng.choice(count, size=min(params.queries or count, count), replace=False))
    query_embeddings = encoder.encode([inputs.query_ids[row] for row in kept], params.batch_size, "mine: queries")
    reranker = Reranker(model, prompt, encoder)
    ignored = [inputs.judgements.ignored[row] for row in kept]
    depth = params.depth + most(ignored)
    if reranker.similarity > 0:
        ranking = bi_encoder_ranking(query_embeddings, documents, depth)
    else:
        ranking = _bm25_ranking(inputs, kept, depth)
    grades = [inputs.judgements.grades[row] for row in kept]
    candidates = select_candidates(ranking, grades, ignored, inputs.judgements.first_copy, params, rng)
    found = label_candidates(reranker, inputs, kept, candidates, params.batch_size, "mine: teacher", documents)
    tracker.log_metrics({**found.facts, **prompt.truncation()})
    save_candidates(paths.candidates, found, query_embeddings, {**parents, "teacher": teacher.hash})
    print("mine: " + ", ".join(f"{name} {value:g}" for name, value in found.facts.items()))
    return read_manifest(paths.candidates, "candidates", verify=False).hash


def _encode_corpus(model: Backbone, inputs: TrainingInputs, paths: Paths, parents: dict[str, str]) -> np.ndarray:
    """The embeddings (N, H) of all documents, kept in data/embeddings; shards finished before a kill are kept."""
    scratch = checkpoint_folder(paths.checkpoints, "embeddings", {**parents, "prompt": inputs.prompt.hash})
    write_shards(model, inputs.document_ids, scratch)
    facts = {"rows": len(inputs.document_ids), "width": model.width}
    with atomic_folder(paths.embeddings) as target:
        copy_shards(scratch, target)
        write_manifest(target, "embeddings", parents, facts)
    shutil.rmtree(scratch, ignore_errors=True)
    return read_embeddings(paths.embeddings, len(inputs.document_ids))


def _bm25_ranking(inputs: TrainingInputs, kept: np.ndarray, depth: int) -> np.ndarray:
    bm25 = Bm25([document.contents for document in inputs.dataset.corpus.values()])
    texts = [inputs.dataset.queries[inputs.judgements.query_ids[row]] for row in kept]
    return bm25.rank(texts, max(depth, 1))[0]
