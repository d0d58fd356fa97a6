"""Stage evaluate: the evaluation table of all systems on the test queries, runs, per-query metrics and plots.

The gate compares versions on the dev queries, which no table reports; what it needs is written beside the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rabtriever.core.artifacts import atomic_folder, atomic_write, check_parent, read_json, read_manifest, write_json
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data.beir_io import Dataset, Queries, Run, write_run
from rabtriever.data.metrics import METRICS, recall_curve, score_queries, summarise
from rabtriever.evaluation import systems as evaluation
from rabtriever.evaluation.calibration import calibration_report
from rabtriever.evaluation.gap import gap_report
from rabtriever.evaluation.latency import others_cpu
from rabtriever.evaluation.plots import draw_calibration, draw_systems
from rabtriever.evaluation.prior import Prior
from rabtriever.evaluation.systems import EvaluateParams, System
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.reranker import Reranker
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import judged_hits
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.model_io import open_model

COSINE_NATS = 20.0  # what a cosine of 1 is worth to a bi-encoder that is trained at a temperature of 0.05
CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100)


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    evaluate: EvaluateParams
    prompt: PromptParams


class _Models(NamedTuple):
    """Everything that ranks.

    Attributes:
        biencoder: the baseline, which is the student's encoder.
        teacher: the reranker's weights.
        embeddings: (N, H) of all documents by the bi-encoder.
        retriever: as it is served.
        inputs: the data, tokenised.
    """

    biencoder: Backbone
    teacher: Backbone
    embeddings: np.ndarray
    retriever: Retriever
    inputs: TrainingInputs


def run(sections: Sections, paths: Paths, tracker: Tracker) -> dict[str, Any]:
    """The table, after writing reports/evaluation.json, the TREC runs, per-query metrics, samples and plots."""
    params = sections.evaluate
    models = _open(sections, paths)
    dataset, retriever = models.inputs.dataset, models.retriever
    queries = dataset.split_queries("test")
    systems, scope = _systems(models, queries, params)
    timed, others = list(queries.values())[: params.timed_queries], others_cpu()
    dev = _dev_runs(models, params)
    systems |= _with_prior(models, systems, dev)
    rows, per_query = evaluation.table(dataset.qrels["test"], systems, timed)
    report = {
        "retriever": retriever.manifest.hash,
        "dataset": read_json(paths.reports / "data.json")["source"],
        "split": "test",
        "num_queries": len(per_query["student"]),  # those without a relevant document have no metrics
        "num_documents": len(dataset.corpus),
        **gap_report(per_query),
        "served": "student_prior" if retriever.manifest.info["document_prior"] else "student",
        "shortlist_recall": retriever.manifest.info["shortlist_recall"],
        "search": "exact scan" if retriever.exact else "shortlist",
        "teacher_scope": scope,
        "timing": {"queries": len(timed), "others_cpu_percent": others},
        "calibration": _calibration(models, systems["student"].run),
        "systems": rows,
    }
    samples = evaluation.sample_rankings(dataset, queries, retriever, params.samples)
    write_json(paths.reports / "gate.json", _for_the_gate(models, dev))
    _write(systems, per_query, samples, report, dataset, paths)
    tracker.log_metrics(
        {f"{name}/{metric}": value for name, row in rows.items() for metric, value in row.items() if value is not None}
    )
    tracker.log_artifact(paths.reports / "evaluation.json")
    tracker.log_artifact(paths.reports / "plots/systems.png")
    closed = report["gap_closed"]
    told = "no significant gap between teacher and bi-encoder" if closed is None else f"{closed['value']} % of the gap"
    print(f"evaluate: {told}" + (" closed by the student" if closed else ""))
    return report


def _calibration(models: _Models, run: Run) -> dict[str, Any] | None:
    """The report on the calibration of the served scores; `run` is the test run without the document prior."""
    dataset, retriever = models.inputs.dataset, models.retriever
    if retriever.manifest.info["document_prior"]:
        run = evaluation.student_system(dataset, dataset.split_queries("test"), retriever).run
    hits = judged_hits(run, dataset.qrels["test"])
    return calibration_report(retriever.calibration, hits) if retriever.calibration and len(hits.scores) else None


def _open(sections: Sections, paths: Paths) -> _Models:
    dataset, data = prepared_data(paths.prepared)
    retriever = Retriever.load(paths.retriever)
    check_parent(retriever.manifest, "data", data)
    biencoder, _, encoder = open_model(paths.biencoder, "biencoder", sections.prompt, data)
    teacher, prompt, manifest = open_model(paths.teacher, "teacher", sections.prompt, data)
    check_parent(retriever.manifest, "teacher", manifest.hash)
    check_parent(read_manifest(paths.embeddings, "embeddings"), "biencoder", encoder.hash)
    embeddings = read_embeddings(paths.embeddings, len(dataset.corpus))
    return _Models(biencoder, teacher, embeddings, retriever, training_inputs(dataset, prompt))


def _systems(models: _Models, queries: Queries, params: EvaluateParams) -> tuple[dict[str, System], str]:
    dataset, prompt = models.inputs.dataset, models.inputs.prompt
    systems = {
        "bm25": evaluation.bm25_system(dataset, queries),
        "biencoder": evaluation.biencoder_system(dataset, queries, models.biencoder, prompt, params.batch_size),
        "student": evaluation.student_system(dataset, queries, _without_prior(models)),
    }
    others, reranker = [system.run for system in systems.values()], Reranker(models.teacher, prompt, models.biencoder)
    systems["teacher"], scope = evaluation.teacher_system(dataset, queries, reranker, models.embeddings, others, params)
    return systems, scope


def _without_prior(models: _Models) -> Retriever:
    """The student alone, also where it is served with the document prior."""
    retriever = models.retriever
    if not retriever.manifest.info["document_prior"]:
        return retriever
    return retriever.reindexed(models.inputs.dataset.corpus)


def _dev_runs(models: _Models, params: EvaluateParams) -> dict[str, Run]:
    """Rankings of the dev queries: the prior is fitted on them, and the gate compares on them."""
    dataset = models.inputs.dataset
    queries = dataset.split_queries("dev")
    biencoder = evaluation.biencoder_system(dataset, queries, models.biencoder, models.inputs.prompt, params.batch_size)
    student = evaluation.student_system(dataset, queries, _without_prior(models))
    return {"biencoder": biencoder.run, "student": student.run}


def _with_prior(models: _Models, systems: Mapping[str, System], dev: Mapping[str, Run]) -> dict[str, System]:
    """Bi-encoder, student and teacher with the document prior on top; the teacher has the student's weights of it."""
    inputs, weights, found = models.inputs, {}, {}
    prior = Prior.of(models.biencoder, inputs, models.embeddings)
    for name in ("biencoder", "student", "teacher"):
        nats = COSINE_NATS if name == "biencoder" else 1.0
        if name in dev:
            weights[name] = prior.fitted(dev[name], inputs.dataset, inputs, nats)
        run = prior.added(systems[name].run, inputs.dataset, inputs, weights.get(name, weights.get("student")), nats)
        found[f"{name}_prior"] = replace(systems[name], run=run, search=None, ms_per_query=None)
    return found


def _for_the_gate(models: _Models, dev: Mapping[str, Run]) -> dict[str, Any]:
    """What a retriever is registered and judged with: its metrics per dev query, and the bi-encoder's mean."""
    dataset, retriever = models.inputs.dataset, models.retriever
    qrels = dataset.qrels["dev"]
    served = dev["student"]
    if retriever.manifest.info["document_prior"]:
        served = evaluation.student_system(dataset, dataset.split_queries("dev"), retriever).run
    return {
        "retriever": retriever.manifest.hash,
        "split": "dev",
        "biencoder_ndcg_10": summarise(score_queries(qrels, dev["biencoder"]))["nDCG@10"],
        "per_query": score_queries(qrels, served),
    }


def _write(
    systems: dict[str, System],
    per_query: dict[str, dict[str, dict[str, float]]],
    samples: list[dict[str, Any]],
    report: dict[str, Any],
    dataset: Dataset,
    paths: Paths,
) -> None:
    with atomic_folder(paths.reports / "runs") as target:
        for name, system in systems.items():
            write_run(target / f"{name}.trec", system.run, name)
    with atomic_write(paths.reports / "per_query.tsv") as file:
        file.write("\t".join(("query_id", "system", *METRICS)) + "\n")
        for name, values in per_query.items():
            for query_id, metrics in values.items():
                file.write("\t".join((query_id, name, *(f"{metrics[metric]:.6f}" for metric in METRICS))) + "\n")
    write_json(paths.reports / "samples.json", samples)
    with atomic_folder(paths.reports / "plots") as target:
        _plots(target, systems, report, dataset)
    write_json(paths.reports / "evaluation.json", report)


def _plots(target: Path, systems: dict[str, System], report: dict[str, Any], dataset: Dataset) -> None:
    with atomic_write(target / "recall.csv") as file:
        file.write("system,k,recall\n")
        for name, system in systems.items():
            curve = recall_curve(dataset.qrels["test"], system.run, CUTOFFS)
            file.writelines(f"{name},{k},{value:.4f}\n" for k, value in curve.items())
    draw_systems(report, target / "systems.png")
    if report["calibration"] is not None:
        draw_calibration(report["calibration"], target / "calibration.png")
