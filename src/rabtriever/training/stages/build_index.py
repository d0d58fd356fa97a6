"""Stage build_index: the folded index, for a large corpus a learned shortlist, and the calibration of the scores."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rabtriever.core.artifacts import check_parent, read_manifest
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Dataset
from rabtriever.data.identical_ids import ranked
from rabtriever.data.judgements import Judgements
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.document_prior import prior_features, with_prior
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import IndexParams, Projections, empty_faiss, overlap
from rabtriever.training.calibrating import Fit, fit_calibration, judged_hits
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_card import Figures, model_card
from rabtriever.training.model_io import open_model
from rabtriever.training.prior_fitting import DEPTH, fit_prior
from rabtriever.training.shortlist_training import ShortlistModule
from rabtriever.training.student_io import load_student
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


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/retriever, built from the student; beyond `exact_up_to` documents with a shortlist."""
    params, seed = sections.index, sections.random.seed
    empty_faiss(params.dimension + 1, params.factory)  # what it cannot read is told before anything is trained
    dataset, data = prepared_data(paths.prepared)
    encoder, prompt, biencoder = open_model(paths.biencoder, "biencoder", sections.prompt, data)
    check_parent(read_manifest(paths.embeddings, "embeddings"), "biencoder", biencoder.hash)
    scorer, student = load_student(paths.student, encoder, prompt, biencoder.hash)
    documents = torch.from_numpy(read_embeddings(paths.embeddings, len(dataset.corpus)))
    projections, recall = None, None
    if len(dataset.corpus) > params.exact_up_to:
        keys = {"student": student.hash, "prompt": prompt.hash, "seed": seed, **asdict(params)}
        checkpoints = checkpoint_folder(paths.checkpoints, "build_index", keys)
        projections = _shortlist(scorer, dataset, documents, params, seed, checkpoints, tracker.lightning_logger())
    folded = _folded_with_prior(scorer, dataset, prompt, documents) if params.document_prior else None
    retriever = Retriever.assemble(scorer, dataset.corpus, documents, params, projections, folded)
    if projections is not None:
        recall = _recall(retriever, list(dataset.split_queries("dev").values())[:RECALL_QUERIES])
        tracker.log_metrics({"shortlist_recall": recall})
    fitted, metrics = _measure_on_dev(retriever, dataset)
    retriever.calibration = fitted.calibration
    parents = {name: student.parents[name] for name in ("biencoder", "teacher", "candidates")}
    parents |= {"data": data, "student": student.hash, "prompt": prompt.hash}
    facts = {"shortlist_recall": recall, "document_prior": params.document_prior, "data": dataset.hash}
    card = model_card(retriever, dataset, biencoder.info, parents, fitted, Figures(metrics, recall))
    built = retriever.save(paths.retriever, parents, facts, card)
    if projections is not None:
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    tracker.log_metrics({"bytes_per_document": retriever.bytes_per_document})
    how = "scanned" if recall is None else f"shortlist recall@{RECALL_AT} {recall:.1f} % of the exact scan"
    print(f"build_index: {len(dataset.corpus)} documents, {retriever.bytes_per_document} bytes each, {how}")
    print(f"build_index: {_said(fitted)}")
    return built.hash


def _shortlist(
    scorer: Scorer,
    dataset: Dataset,
    documents: torch.Tensor,
    params: IndexParams,
    seed: int,
    checkpoints: Path,
    logger: Any,
) -> Projections:
    """The projections, trained on a sample of queries and documents whose scores fit in memory."""
    queries = scorer.encode(list(dataset.split_queries("train").values()), "build_index: queries")
    seed_torch(seed)  # the projections are drawn at random
    projections = Projections(scorer.encoder.width, params.dimension)
    projections.standardise(queries, documents)
    rng = np.random.default_rng(seed)
    columns = _sample(len(documents), 20_000, rng)
    rows = _sample(len(queries), max(1, TRAINING_CELLS // len(columns)), rng)
    score = scorer.against(documents[columns])
    scores = torch.cat([torch.from_numpy(score(part)) for part in queries[rows].split(256)])
    module = ShortlistModule(projections, queries[rows], documents[columns], scores, seed)
    fit(module, "build_index: shortlist", checkpoints, logger)
    return projections


def _folded_with_prior(scorer: Scorer, dataset: Dataset, prompt: Prompt, documents: torch.Tensor) -> FoldedDocuments:
    """The folded documents with the document prior in them, its weights fitted on the dev queries."""
    inputs, folded = training_inputs(dataset, prompt), scorer.fold(documents)
    asked = scorer.encoder.encode(inputs.query_ids, 256, "build_index: training queries")
    features = prior_features(documents.numpy(), asked, inputs.judgements.grades)
    dev = Judgements.build(dataset.corpus, dataset.qrels["dev"], dataset.queries)
    states = scorer.encode(dev.texts(dataset.queries))
    scores = scorer.scores(states, folded)
    rows = top_rows(scores, DEPTH)
    weights = fit_prior(rows, np.take_along_axis(scores, rows, axis=1), states.numpy(), features, dev.grades)
    print("build_index: " + ", ".join(f"{name} {value:.3g}" for name, value in weights._asdict().items()))
    return with_prior(folded, features, weights, scorer.predictor.similarity)


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
