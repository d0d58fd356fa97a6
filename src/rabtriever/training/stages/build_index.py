"""Stage build_index: the retriever folder, with the exact folded index, the learned shortlist and the calibration."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch

from rabtriever.core.artifacts import Manifest, check_parent, read_manifest
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data.beir_io import Dataset
from rabtriever.data.identical_ids import ranked
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.document_terms import MEMORY, EncodedDocuments, read_memory, score_weights
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import IndexParams, Projections, empty_faiss, overlap
from rabtriever.training.calibrating import Fit, fit_calibration, judged_hits
from rabtriever.training.embeddings import read_documents_encoded
from rabtriever.training.inputs import prepared_data
from rabtriever.training.model_card import Figures, model_card
from rabtriever.training.model_io import open_teacher
from rabtriever.training.shortlist_training import ShortlistModule
from rabtriever.training.student_io import check_foldable, load_student
from rabtriever.training.trainer import checkpoint_folder, fit

RECALL_AT = 10
RECALL_QUERIES = 500
DEV_DEPTH = 100  # documents of a dev query that the metrics look at
TRAINING_CELLS = 50_000_000  # scores of the shortlist's training sample held in memory


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    index: IndexParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker, round: int) -> str:
    """The hash of models/retriever, built from the student of `round`."""
    check_foldable(paths.student / str(round))
    params = sections.index
    prompt_params = sections.prompt
    seed = sections.random.seed
    empty_faiss(params.dimension + 1, params.factory)  # what it cannot read is told before anything is trained
    dataset, data = prepared_data(paths.prepared)
    opened = open_teacher(paths.teacher, prompt_params, data)
    teacher, prompt, manifest = opened.backbone, opened.prompt, opened.manifest
    check_parent(read_manifest(paths.embeddings, "embeddings"), "teacher", manifest.hash)
    backbone = read_manifest(paths.backbone, "backbone", verify=False)
    check_parent(manifest, "backbone", backbone.hash)
    scorer, student = load_student(paths.student / str(round), opened.encoder, prompt, manifest.hash)
    documents = read_documents_encoded(paths.embeddings, len(dataset.corpus), score_weights(teacher))
    memory = read_memory(paths.embeddings / MEMORY)
    train = scorer.encode(list(dataset.split_queries("train").values()), "build_index: queries")
    keys = {"student": student.hash, "prompt": prompt.hash, "seed": seed, **asdict(params)}
    checkpoints = checkpoint_folder(paths.checkpoints, "build_index", keys)
    seed_torch(seed)  # the projections are drawn at random
    projections = Projections(scorer.encoder.width, params.dimension)
    module = _shortlist_module(scorer, projections, train, documents, params, seed)
    fit(module, "build_index: shortlist", checkpoints, tracker.lightning_logger())
    retriever = Retriever.assemble(scorer, dataset.corpus, documents, projections, params, memory)
    recall = _recall(retriever, list(dataset.split_queries("dev").values())[:RECALL_QUERIES])
    fitted, metrics = _measure_on_dev(retriever, dataset)
    retriever.calibration = fitted.calibration
    parents = _parents(manifest, student, data)
    facts = {"round": round, "shortlist_recall": recall, "data": dataset.hash}
    card = model_card(retriever, dataset, backbone.info, parents, fitted, Figures(metrics, recall))
    built = retriever.save(paths.retriever, parents, facts, card)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    tracker.log_metrics({"shortlist_recall": recall, "bytes_per_document": retriever.bytes_per_document})
    print(
        f"build_index: {len(dataset.corpus)} documents, shortlist recall@{RECALL_AT} {recall:.1f} % of the exact scan"
    )
    print(f"build_index: {_said(fitted)}")
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


def _measure_on_dev(retriever: Retriever, dataset: Dataset) -> tuple[Fit, dict[str, float]]:
    """The calibration fitted on the dev queries, and their metrics in per cent; none where none has an answer."""
    queries, qrels = dataset.split_queries("dev"), dataset.qrels["dev"]
    run = ranked(lambda depth: retriever.rank(queries, depth), dataset, queries, DEV_DEPTH)
    scored = score_queries(qrels, run)
    return fit_calibration(judged_hits(run, qrels), retriever.params.precision), summarise(scored) if scored else {}


def _said(fitted: Fit) -> str:
    made = fitted.calibration
    if made is None:
        return f"no calibration: {fitted.missing}"
    wanted = f"{100 * made.precision:g} % of the hits of dev queries are right"
    if made.threshold is None:
        return f"scores are calibrated on dev queries; no relevance_score has the precision index.precision: {wanted}"
    return f"scores are calibrated on dev queries; from a relevance_score of {made.threshold:.3f} on, {wanted}"


def _parents(teacher: Manifest, student: Manifest, data: str) -> dict[str, str]:
    return {
        "data": data,
        "backbone": teacher.parents["backbone"],
        "teacher": teacher.hash,
        "candidates": student.parents["candidates"],
        "student": student.hash,
        "prompt": teacher.parents["prompt"],
    }
