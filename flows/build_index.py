"""Stage build_index: the retriever folder, with the exact folded index and the learned shortlist.

Run as `python -m flows.build_index`.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict

import numpy as np
import torch
from prefect import flow

from flows.common import CHECKPOINTS, EMBEDDINGS, PARAMS, PREPARED, RETRIEVER, STUDENT, TEACHER, main
from rabtriever.artifacts import Manifest, check_parent, read_manifest
from rabtriever.distilled import check_foldable, load_student
from rabtriever.document_terms import EncodedDocuments
from rabtriever.embeddings import MEMORY, read_documents_encoded, read_memory
from rabtriever.inputs import open_teacher, prepared_data
from rabtriever.params import load_params
from rabtriever.prompt import PromptParams
from rabtriever.retriever import Retriever
from rabtriever.scorer import Scorer
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.shortlist import IndexParams, Projections, empty_faiss, overlap
from rabtriever.shortlist_training import ShortlistModule
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit

RECALL_AT = 10
RECALL_QUERIES = 500
TRAINING_CELLS = 50_000_000  # scores of the shortlist's training sample held in memory


@flow(name="build_index")
def build_index(round: int) -> str:
    """The hash of models/retriever, built from the student of `round`."""
    check_foldable(STUDENT / str(round))
    params = load_params(IndexParams, "index", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    empty_faiss(params.dimension + 1, params.factory)  # what it cannot read is told before anything is trained
    dataset, data = prepared_data(PREPARED)
    with stage_run("build_index", params) as run:
        opened = open_teacher(TEACHER, prompt_params, data)
        teacher, prompt, manifest = opened.backbone, opened.prompt, opened.manifest
        check_parent(read_manifest(EMBEDDINGS, "embeddings"), "teacher", manifest.hash)
        scorer, student = load_student(STUDENT / str(round), opened.encoder, prompt, manifest.hash)
        documents = read_documents_encoded(EMBEDDINGS, len(dataset.corpus), teacher.weights)
        memory = read_memory(EMBEDDINGS / MEMORY)
        train = scorer.encode(list(dataset.split_queries("train").values()), "build_index: queries")
        keys = {"student": student.hash, "prompt": prompt.hash, "seed": seed, **asdict(params)}
        checkpoints = checkpoint_folder(CHECKPOINTS, "build_index", keys)
        seed_torch(seed)  # the projections are drawn at random
        projections = Projections(scorer.encoder.width, params.dimension)
        module = _shortlist_module(scorer, projections, train, documents, params, seed)
        fit(module, "build_index: shortlist", checkpoints, run.lightning_logger())
        retriever = Retriever.assemble(scorer, dataset.corpus, documents, projections, params, memory)
        recall = _recall(retriever, list(dataset.split_queries("dev").values())[:RECALL_QUERIES])
        parents = _parents(manifest, student, data)
        facts = {"round": round, "shortlist_recall": recall, "data": dataset.hash}
        built = retriever.save(RETRIEVER, parents, facts)
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
        run.log_metrics({"shortlist_recall": recall, "bytes_per_document": retriever.bytes_per_document})
    print(
        f"build_index: {len(dataset.corpus)} documents, shortlist recall@{RECALL_AT} {recall:.1f} % of the exact scan"
    )
    return built.hash


def _shortlist_module(
    scorer: Scorer,
    projections: Projections,
    queries: torch.Tensor,
    documents: EncodedDocuments,
    params: IndexParams,
    seed: int,
) -> ShortlistModule:
    """The module over a sample of queries and documents whose scores fit in memory."""
    rng = np.random.default_rng(seed)
    projections.standardise(queries, documents)
    columns = _sample(len(documents.states), 20_000, rng)
    rows = _sample(len(queries), max(1, TRAINING_CELLS // len(columns)), rng)
    sampled = documents.at(columns)
    score = scorer.against(sampled)
    scores = torch.cat([torch.from_numpy(score(part)) for part in queries[rows].split(256)])
    return ShortlistModule(projections, queries[rows], sampled, scores, params, seed)


def _sample(total: int, limit: int, rng: np.random.Generator) -> torch.Tensor:
    rows = np.arange(total) if total <= limit else np.sort(rng.choice(total, limit, replace=False))
    return torch.from_numpy(rows)


def _recall(retriever: Retriever, texts: list[str]) -> float:
    """Share of the exact top 10 of dev queries that the shortlist proposes, in per cent."""
    states = retriever.encode(texts)
    proposed = retriever.shortlist(states, retriever.params.depth)
    return overlap(proposed, retriever.exact_top(states, RECALL_AT)[0])


def _parents(teacher: Manifest, student: Manifest, data: str) -> dict[str, str]:
    return {
        "data": data,
        "backbone": teacher.parents["backbone"],
        "teacher": teacher.hash,
        "candidates": student.parents["candidates"],
        "student": student.hash,
        "prompt": teacher.parents["prompt"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.build_index", description=__doc__.splitlines()[0])
    parser.add_argument("--round", type=int, required=True, help="which round's student")
    main(build_index, round=parser.parse_args().round)
