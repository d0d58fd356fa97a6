"""Stage evaluate: the evaluation table of all systems on the test queries, runs, per-query metrics and plots.

Run as `python -m flows.evaluate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow

from flows.common import BIENCODER, EMBEDDINGS, PARAMS, PREPARED, REPORTS, RETRIEVER, TEACHER, main
from rabtriever import evaluation
from rabtriever.artifacts import atomic_folder, atomic_write, check_parent, read_json, read_manifest, write_json
from rabtriever.embeddings import read_documents_encoded
from rabtriever.evaluation import EvaluateParams, System
from rabtriever.inputs import open_model, open_teacher, prepared_data
from rabtriever.metrics import METRICS, recall_curve
from rabtriever.params import load_params
from rabtriever.plots import draw_systems
from rabtriever.prompt import PromptParams
from rabtriever.records import Dataset, Queries, write_run
from rabtriever.reranker import Reranker
from rabtriever.retriever import Retriever
from rabtriever.tracking import stage_run

CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100)


@flow(name="evaluate")
def evaluate() -> dict[str, Any]:
    """The table, after writing reports/evaluation.json, the TREC runs, per-query metrics, samples and plots."""
    params = load_params(EvaluateParams, "evaluate", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    dataset, data = prepared_data(PREPARED)
    queries = dataset.split_queries("test")
    with stage_run("evaluate", params) as run:
        retriever = Retriever.load(RETRIEVER)
        check_parent(retriever.manifest, "data", data)
        systems, scope = _systems(dataset, data, queries, retriever, prompt_params, params)
        rows, per_query = evaluation.table(dataset.qrels["test"], systems)
        report = {
            "retriever": retriever.manifest.hash,
            "dataset": read_json(REPORTS / "data.json")["source"],
            "split": "test",
            "num_queries": len(per_query["student"]),  # those without a relevant document have no metrics
            "num_documents": len(dataset.corpus),
            "retention": evaluation.retention(rows),
            "shortlist_recall": retriever.manifest.info["shortlist_recall"],
            "search": "exact scan" if retriever.exact else "shortlist",
            "teacher_scope": scope,
            "systems": rows,
        }
        samples = evaluation.sample_rankings(dataset, queries, retriever, params.samples)
        _write(systems, per_query, samples, report, dataset)
        run.log_metrics({f"{name}/{metric}": value for name, row in rows.items() for metric, value in row.items()})
        run.log_artifact(REPORTS / "evaluation.json")
        run.log_artifact(REPORTS / "plots/systems.png")
    print(f"evaluate: student keeps {report['retention']} % of the teacher's nDCG@10")
    return report


def _systems(
    dataset: Dataset,
    data: str,
    queries: Queries,
    retriever: Retriever,
    prompt_params: PromptParams,
    params: EvaluateParams,
) -> tuple[dict[str, System], str]:
    biencoder, prompt, _ = open_model(BIENCODER, "biencoder", prompt_params, data)
    systems = {
        "frequency": evaluation.frequency_system(dataset, queries),
        "bm25": evaluation.bm25_system(dataset, queries, params.timed_queries),
        "biencoder": evaluation.biencoder_system(
            dataset, queries, biencoder, prompt, params.batch_size, params.timed_queries
        ),
        "student": evaluation.student_system(queries, retriever, params.timed_queries),
    }
    teacher, reader, prefix, prompt, manifest = open_teacher(TEACHER, prompt_params, data)
    check_parent(retriever.manifest, "teacher", manifest.hash)
    check_parent(read_manifest(EMBEDDINGS, "embeddings"), "teacher", manifest.hash)
    encoded = read_documents_encoded(EMBEDDINGS, len(dataset.corpus), teacher.weights)
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
) -> None:
    with atomic_folder(REPORTS / "runs") as target:
        for name, system in systems.items():
            write_run(target / f"{name}.trec", system.run, name)
    with atomic_write(REPORTS / "per_query.tsv") as file:
        file.write("\t".join(("query_id", "system", *METRICS)) + "\n")
        for name, values in per_query.items():
            for query_id, metrics in values.items():
                file.write("\t".join((query_id, name, *(f"{metrics[metric]:.6f}" for metric in METRICS))) + "\n")
    write_json(REPORTS / "samples.json", samples)
    with atomic_folder(REPORTS / "plots") as target:
        _plots(target, systems, report, dataset)
    write_json(REPORTS / "evaluation.json", report)


def _plots(target: Path, systems: dict[str, System], report: dict[str, Any], dataset: Dataset) -> None:
    with atomic_write(target / "recall.csv") as file:
        file.write("system,k,recall\n")
        for name, system in systems.items():
            curve = recall_curve(dataset.qrels["test"], system.run, CUTOFFS)
            file.writelines(f"{name},{k},{value:.4f}\n" for k, value in curve.items())
    draw_systems(report, target / "systems.png")


if __name__ == "__main__":
    main(evaluate)
