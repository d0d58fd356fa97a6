"""The view of cost and quality: every system, a bi-encoder whose first k documents the teacher reads, larger corpora.

What a run has measured is told apart from what follows from it. The quality of a reranked bi-encoder comes from the
recorded runs. Times of other corpus sizes are extrapolated:

- The teacher's time grows with the documents that it reads, at the time a pair took in the run.
- A scan reads every stored byte once. The study `cpu` has measured 14 to 17 GB a second on two threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rabtriever.data.beir_io import Run
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.server.page_data import METRIC, ranked
from rabtriever.server.project import Finished

DEPTHS = (1, 2, 3, 5, 10, 20, 50, 100)  # documents that the teacher reads
SIZES = tuple(round(10 ** (2 + step / 4)) for step in range(17))  # documents of a corpus, 100 to 1,000,000
BYTES_A_MS = 15e6  # read by a scan, see above
_SCANS = ("bm25", "biencoder", "student")


def cost(finished: Finished) -> dict[str, Any]:
    """Points of all systems, the curve of the reranked bi-encoder, and times by corpus size with what they say.

    `missing` says why there is no curve, where runs of bi-encoder or teacher, or the library of metrics, are not there.
    """
    evaluation = finished.evaluation
    systems = {
        name: {
            "quality": row[METRIC],
            "ms": row["ms_per_query"],
            "p95": row.get("ms_per_query_p95"),
            "bytes": row["bytes_per_document"],
        }
        for name, row in evaluation["systems"].items()
    }
    found: dict[str, Any] = {
        "metric": METRIC,
        "systems": systems,
        "documents": evaluation["num_documents"],
        "scope": evaluation.get("teacher_scope", ""),
        "calibration": evaluation.get("calibration"),
        "others_cpu_percent": evaluation.get("timing", {}).get("others_cpu_percent"),
    }
    if lacking := [name for name in ("biencoder", "student", "teacher") if name not in finished.runs]:
        return {**found, "missing": f"The curve needs the runs of {', '.join(lacking)}; run dvc repro."}
    pair = pair_ms(finished)
    try:
        curve = rerank_curve(finished, pair)
    except ModuleNotFoundError as error:
        return {**found, "missing": f"The curve needs {error.name}; install rabtriever[train]."}
    return {**found, "pair_ms": pair, "curve": curve, "sizes": sizes(finished, pair, curve)}


def pair_ms(finished: Finished) -> float:
    """Milliseconds that the teacher took for one query and one document, in one pass over all of them.

    A pass reads each document once for all queries. A single query on a live system takes longer.
    """
    evaluation = finished.evaluation
    pool = re.search(r"first ([0-9]+) documents", evaluation.get("teacher_scope", ""))
    if pool is None:
        read = float(evaluation["num_documents"])
    else:
        runs = [finished.runs[name] for name in _SCANS if name in finished.runs]
        queries, depth = finished.dataset.qrels["test"], int(pool[1])
        read = sum(len(_first(runs, query_id, depth)) for query_id in queries) / len(queries)
    return evaluation["systems"]["teacher"]["ms_per_query"] / max(read, 1.0)


def rerank_curve(finished: Finished, pair: float) -> list[dict[str, float]]:
    """Quality (from the runs) and time (extrapolated) of a bi-encoder whose first k documents the teacher orders."""
    base = finished.evaluation["systems"]["biencoder"]["ms_per_query"]
    qrels, biencoder, teacher = finished.dataset.qrels["test"], finished.runs["biencoder"], finished.runs["teacher"]
    return [
        {
            "k": depth,
            "quality": round(summarise(score_queries(qrels, reranked(biencoder, teacher, depth)))[METRIC], 2),
            "ms": round(base + depth * pair, 3),
        }
        for depth in DEPTHS
        if depth <= finished.evaluation["num_documents"]
    ]


def reranked(run: Run, teacher: Run, depth: int) -> Run:
    """A run whose first `depth` documents are in the teacher's order; the rest follow as they were.

    Documents that the teacher's run lacks come after those it has: a run keeps its first 100.
    """
    return {query_id: _reranked(scores, teacher.get(query_id, {}), depth) for query_id, scores in run.items()}


def _reranked(scores: Mapping[str, float], teacher: Mapping[str, float], depth: int) -> dict[str, float]:
    order = [doc_id for doc_id, _ in ranked(scores)]
    first = sorted(order[:depth], key=lambda doc_id: -teacher.get(doc_id, float("-inf")))  # stable: ties stay
    return {doc_id: float(-place) for place, doc_id in enumerate(first + order[depth:])}


def sizes(finished: Finished, pair: float, curve: list[dict[str, float]]) -> dict[str, Any]:
    """Milliseconds of a query by corpus size, and where the student is the cheapest of equal quality.

    Every time but that of the run's own corpus is extrapolated. `match` is the smallest k at which the reranked
    bi-encoder is as good as the student: 0 where it is without the teacher, None where no k is enough.
    """
    systems, measured = finished.evaluation["systems"], finished.evaluation["num_documents"]
    student = systems["student"][METRIC]
    points = [{"k": 0, "quality": systems["biencoder"][METRIC]}, *curve]
    match = next((int(point["k"]) for point in points if point["quality"] >= student), None)
    shown = sorted({*SIZES, measured})
    depth = match if match is not None else int(curve[-1]["k"])
    lines = {
        "student": [scan_ms(systems["student"], measured, size) for size in shown],
        "biencoder": [scan_ms(systems["biencoder"], measured, size) for size in shown],
        "rerank": [scan_ms(systems["biencoder"], measured, size) + min(depth, size) * pair for size in shown],
        "teacher": [pair * size for size in shown],
    }
    return {
        "sizes": shown,
        "ms": {name: [round(value, 3) for value in values] for name, values in lines.items()},
        "match": match,
        "depth": depth,
        "cheaper_than_teacher_from": _first_cheaper(shown, lines["student"], lines["teacher"]),
        "cheaper_than_rerank": _cheaper_range(shown, lines["student"], lines["rerank"]),
    }


def scan_ms(row: Mapping[str, float], measured: int, size: int) -> float:
    """Milliseconds of a query of a system that scans: the measured time, and what the bytes of more documents add."""
    added = (size - measured) * row["bytes_per_document"] / BYTES_A_MS
    return max(row["ms_per_query"] + added, 0.001)


def _first(runs: list[Run], query_id: str, depth: int) -> set[str]:
    return {doc_id for run in runs for doc_id, _ in ranked(run.get(query_id, {}))[:depth]}


def _first_cheaper(sizes: Sequence[int], ours: list[float], theirs: list[float]) -> int | None:
    return next((size for size, one, other in zip(sizes, ours, theirs, strict=True) if one < other), None)


def _cheaper_range(sizes: Sequence[int], ours: list[float], theirs: list[float]) -> list[int] | None:
    """The smallest and the largest of the sizes at which ours takes less time; None where it never does."""
    found = [size for size, one, other in zip(sizes, ours, theirs, strict=True) if one < other]
    return [found[0], found[-1]] if found else None
