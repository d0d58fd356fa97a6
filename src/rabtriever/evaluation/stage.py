"""Stage evaluate: the evaluation table of all systems on the test queries, runs, per-query metrics and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rabtriever.core.artifacts import atomic_folder, atomic_write, check_parent, read_json, read_manifest, write_json
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data.beir_io import Dataset, Queries, Run, write_run
from rabtriever.data.metrics import METRICS, recall_curve
from rabtriever.evaluation import systems as evaluation
from rabtriever.evaluation.calibration import calibration_report
from rabtriever.evaluation.latency import others_cpu
from rabtriever.evaluation.plots import draw_calibration, draw_systems
from rabtriever.evaluation.systems import EvaluateParams, System
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.document_terms import score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import judged_hits
from rabtriever.training.embeddings import read_documents_encoded
from rabtriever.training.inputs import prepared_data
from rabtriever.training.model_io import open_model, open_teacher

CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100)


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    evaluate: EvaluateParams
    prompt: PromptParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> dict[str, Any]:
    """The table, after writing reports/evaluation.json, the TREC runs, per-query metrics, samples and plots."""
    params = sections.evaluate
    dataset, data = prepared_data(paths.prepared)
    queries = dataset.split_queries("test")
    retriever = Retriever.load(paths.retriever)
    check_parent(retriever.manifest, "data", data)
    systems, scope = _systems(dataset, data, queries, retriever, sections, paths)
    timed, others = list(queries.values())[: params.timed_queries], others_cpu()
    rows, per_query = evaluation.table(dataset.qrels["test"], systems, timed)
    report = {
        "retriever": retriever.manifest.hash,
        "dataset": read_json(paths.reports / "data.json")["source"],
        "split": "test",
        "num_queries": len(per_query["student"]),  # those without a relevant document have no metrics
        "num_documents": len(dataset.corpus),
        "retention": evaluation.retention(rows),
        "shortlist_recall": retriever.manifest.info["shortlist_recall"],
        "search": "exact scan" if retriever.exact else "shortlist",
        "teacher_scope": scope,
        "timing": {"queries": len(timed), "others_cpu_percent": others},
        "calibration": _calibration(retriever, systems["student"].run, dataset),
        "systems": rows,
    }
    samples = evaluation.sample_rankings(dataset, queries, retriever, params.samples)
    _write(systems, per_query, samples, report, dataset, paths)
    tracker.log_metrics(
        {f"{name}/{metric}": value for name, row in rows.items() for metric, value in row.items() if value is not None}
    )
    tracker.log_artifact(paths.reports / "evaluation.json")
    tracker.log_artifact(paths.reports / "plots/systems.png")
    print(f"evaluate: student keeps {report['retention']} % of the teacher's nDCG@10")
    return report


def _calibration(retriever: Retriever, run: Run, dataset: Dataset) -> dict[str, Any] | None:
    hits = judged_hits(run, dataset.qrels["test"])
    return calibration_report(retriever.calibration, hits) if retriever.calibration and len(hits.scores) else None


def _systems(
    dataset: Dataset,
    data: str,
    queries: Queries,
    retriever: Retriever,
    sections: Sections,
    paths: Paths,
) -> tuple[dict[str, System], str]:
    prompt_params, params = sections.prompt, sections.evaluate
    biencoder, prompt, _ = open_model(paths.biencoder, "biencoder", prompt_params, data)
    systems = {
        "frequency": evaluation.frequency_system(dataset, queries),
        "bm25": evaluation.bm25_system(dataset, queries),
        "biencoder": evaluation.biencoder_system(dataset, queries, biencoder, prompt, params.batch_size),
        "student": evaluation.student_system(dataset, queries, retriever),
    }
    teacher, reader, prefix, prompt, manifest = open_teacher(paths.teacher, prompt_params, data)
    check_parent(retriever.manifest, "teacher", manifest.hash)
    check_parent(read_manifest(paths.embeddings, "embeddings"), "teacher", manifest.hash)
    encoded = read_documents_encoded(paths.embeddings, len(dataset.corpus), score_weights(teacher))
    others = [systems[name].run for name in ("bm25", "biencoder", "student")]
    reranker = Reranker(teacher, prompt, reader, prefix)
    systems["teacher"], scope = evaluation.teacher_system(dataset, queries, reranker, encoded, others, params)
    return systems, scope


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
