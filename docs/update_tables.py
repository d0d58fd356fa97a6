"""Writes the tables of README.md and docs/ from the committed docs/evaluation/*.json.

`python docs/update_tables.py` redraws the tables. With `--take` it first copies reports/evaluation.json to
docs/evaluation, with DVC's lock as the record of what it was made with, and asks models/retriever the example queries
of the documentation for docs/evaluation/examples.json.
A table stands between `<!-- table: NAME -->` and `<!-- end -->`, where NAME is a file of docs/evaluation. The rows with
the document prior are in it where the mark says `<!-- table: NAME with prior -->`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
EVALUATIONS = DOCS / "evaluation"
EXAMPLES_DATA = DOCS.parent / "data/household"
EXAMPLES_DEPTH = 5  # documents kept per example query
PAGES = [
    DOCS.parent / "README.md",
    DOCS / "results.md",
    DOCS / "guides/backup-and-move.md",
    DOCS / "concepts/calibration.md",
    DOCS / "guides/serve.md",
    DOCS.parent / "examples/rag/README.md",
]
COLUMNS = ("nDCG@10", "MRR@10", "R@1", "R@10", "R@100", "S@1", "ms_per_query", "ms_per_query_p95", "bytes_per_document")
TITLES = {"ms_per_query": "ms/query", "ms_per_query_p95": "p95", "bytes_per_document": "bytes/doc"}
BLOCK = re.compile(r"(<!-- table: (\w+)( with prior)? -->\n).*?(<!-- end -->)", re.DOTALL)


def table(report: dict[str, Any], with_prior: bool = False) -> str:
    """A Markdown table of one evaluation report, below a line on what was measured and what reading adds."""
    lines = [
        f"`{report['dataset']}`: {report['num_queries']} {report['split']} queries, "
        f"{report['num_documents']} documents.{gap(report)}",
        "",
        "| | " + " | ".join(TITLES.get(column, column) for column in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for name, row in report["systems"].items():
        if with_prior or not name.endswith("_prior"):
            lines.append(f"| {name} | " + " | ".join(_cell(column, row.get(column)) for column in COLUMNS) + " |")
    return "\n".join(lines)


def gap(report: dict[str, Any]) -> str:
    """What reading adds, and how much of it the student keeps, as sentences; empty for a report that does not tell."""
    if "gap" not in report:
        return ""
    told = f"\nReading adds {_interval(report['gap'], '+.1f')} points of {report['metric']} to the bi-encoder"
    if report["gap_closed"] is None:
        return told + ", which is not significant."
    return f"{told}; the student closes **{_interval(report['gap_closed'], '.0f', ' %')}** of this gap."


def _interval(found: dict[str, float], form: str, unit: str = "") -> str:
    middle = found.get("mean", found.get("value"))
    return f"{middle:{form}}{unit} ({found['low']:{form}} to {found['high']:{form}})".replace("-", "−")


def drills_table(report: dict) -> str:
    """A Markdown table of benchmarks/drills.py: in how many stages each disturbance did no harm, and what was said."""
    lines = ["| disturbance | stages | last words of the disturbed run |", "|---|---|---|"]
    for way in dict.fromkeys(way for _, way in report["drills"]):
        rows = [row for row in report["rows"] if row["way"] == way]
        said = [_last_words(row) for row in rows] or ["–"]
        wrong = "".join(f", **not {row['stage']}**" for row in rows if not row["sound"])
        planned = sum(way == other for _, other in report["drills"])
        sound = sum(row["sound"] for row in rows)
        lines.append(f"| {way} | {sound} of {planned}{wrong} | {max(said, key=said.count)} |")
    return "\n".join(lines)


def abstention_table(report: dict) -> str:
    """Markdown tables of benchmarks/abstention.py: which scores tell queries without an answer, and calibrations."""
    counts = f"{report['answerable']['test']:,} test queries with an answer and {report['out_of_scope']:,} without"
    lines = [
        f"`{report['dataset']}`: {counts}, in per cent.",
        "",
        "| top score of | AUROC | answerable kept | out of scope refused |",
        "|---|---:|---:|---:|",
        *(
            f"| {name} | {row['auroc']:.1f} | {row['kept']:.1f} | {row['refused']:.1f} |"
            for name, row in report["systems"].items()
        ),
        "",
        "| calibration, held-out dev hits | Brier score | log loss |",
        "|---|---:|---:|",
        *(f"| {name} | {row['brier']:.4f} | {row['log_loss']:.4f} |" for name, row in report["calibrators"].items()),
    ]
    return "\n".join([*lines, *_at_threshold(report["threshold"])])


def serve_table(report: dict) -> str:
    """Markdown tables of benchmarks/serve.py: both servers under load, and what changes under load have done."""
    found, soak, kills = report["throughput"], report["soak"], report["kills"]
    ours, theirs = found["rabtriever"], found["mlflow"]
    lines = [
        "| connections | requests/s | p50 ms | p95 ms | p99 ms | MLflow's | p50 ms | p95 ms | p99 ms | ratio |",
        "|---:|" + "---:|" * 9,
    ]
    for name, ratio in found["ratio"].items():
        cells = [f"{row[key]:,.1f}" for row in (ours[name], theirs[name]) for key in _LOAD]
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio} |")
    ready = f"{ours['ready_after_seconds']:.1f} s, MLflow's after {theirs['ready_after_seconds']:.1f} s"
    rows = {
        "ready": f"after {ready}",
        "encoding of one query": f"{found['encoder_ms']:.1f} ms, "
        f"{100 * found['encoder_share']:.0f} % of a lone request",
        f"{soak['minutes']:g} minutes at {soak['connections']} connections": f"{soak['requests_per_second']:,.1f} "
        f"requests/s, {soak['documents_added']} documents added, versions {' and '.join(soak['versions_served'])} "
        "taken over meanwhile",
        "failed requests in these": f"{soak['failed']}",
        "memory in these": " to ".join(f"{size:,} MB" for size in soak["resident_megabytes"])
        + f" ({soak['resident_change_percent']:+.1f} %)",
        f"{kills['kills']} times `kill -9` while documents are written": f"{kills['acknowledged']:,} acknowledged, "
        f"{kills['lost']} lost",
    }
    return "\n".join(
        [*lines, "", "| measured | |", "|---|---|", *(f"| {name} | {row} |" for name, row in rows.items())]
    )


def rag_table(report: dict) -> str:
    """A Markdown table of examples/rag/answer.py: how often the first thing that an answer names is right."""
    rows = [f"| {way} | {value:.0f} |" for way, value in report["right_percent"].items()]
    asked = f"{report['queries']} {report['split']} queries, {report['documents_read']} documents read"
    return "\n".join([f"`{report['dataset']}`: {asked}.", "", "| answer | right, % |", "|---|---:|", *rows])


def _at_threshold(found: dict | None) -> list[str]:
    if found is None:
        return []
    return [
        "",
        f"At the threshold for a precision of 90 % ({found['relevance_score']:.3f}), "
        f"{found['answerable_answered']:.1f} % of the queries with an answer have a hit, "
        f"and {found['out_of_scope_answered']:.1f} % of those without.",
    ]


def _last_words(row: dict) -> str:
    """The last line that a disturbed run has printed, for any stage."""
    last = row["message"].splitlines()[-1:]
    return f"`{last[0].replace(row['stage'], 'STAGE')}`" if last else "none: it was killed"


def _cell(column: str, value: float | None) -> str:
    if value is None:
        return "–"
    if column == "bytes_per_document":
        return f"{value:,.0f}"
    return f"{value:.2f}" if column.startswith("ms_per_query") else f"{value:.1f}"


def rendered(page: Path) -> str:
    """The page with its tables drawn anew."""

    def fill(match: re.Match[str]) -> str:
        report = json.loads((EVALUATIONS / f"{match.group(2)}.json").read_text())
        drawn = next((draw(report) for key, draw in _DRAWN.items() if key in report), None)
        return f"{match.group(1)}{drawn or table(report, bool(match.group(3)))}\n{match.group(4)}"

    return BLOCK.sub(fill, page.read_text())


_LOAD = ("requests_per_second", "p50", "p95", "p99")
_DRAWN = {
    "rows": drills_table,
    "out_of_scope": abstention_table,
    "throughput": serve_table,
    "right_percent": rag_table,
}  # by a key that only such reports have


def examples(folder: Path) -> dict[str, Any]:
    """What a retriever folder answers to the example queries: per query its first documents with score and grade.

    Raises:
        ValueError: If the first document of an example was not judged relevant; pages must not show such an answer.
    """
    from rabtriever.data.beir_io import read_qrels, read_queries
    from rabtriever.ops.examples import EXAMPLES
    from rabtriever.search.retriever import Retriever

    ids = {text: query_id for query_id, text in read_queries(EXAMPLES_DATA / "queries.jsonl").items()}
    qrels = read_qrels(EXAMPLES_DATA / "qrels/test.tsv")
    retriever = Retriever.load(folder)
    answers = []
    for query, hits in zip(EXAMPLES, retriever.search(list(EXAMPLES), k=EXAMPLES_DEPTH), strict=True):
        grades = qrels[ids[query]]
        if not grades.get(hits[0].doc_id):
            raise ValueError(
                f"{folder} answers {query!r} with {hits[0].doc_id} ({hits[0].title}), which was not judged relevant; "
                "train it further, or choose another query in src/rabtriever/ops/examples.py"
            )
        found = [{**_shown(hit), "grade": grades.get(hit.doc_id, 0)} for hit in hits]
        answers.append({"query_id": ids[query], "query": query, "hits": found})
    return {"dataset": EXAMPLES_DATA.name, "retriever": retriever.manifest.hash, "examples": answers}


def _shown(hit: Any) -> dict[str, Any]:
    return {"doc_id": hit.doc_id, "score": round(float(hit.score), 2), "title": hit.title, "text": hit.text}


def record(report: str) -> str:
    """The lock of the run that wrote a report: hashes of its code, settings, data and results."""
    lock = (DOCS.parent / "dvc.lock").read_text()
    if hashlib.md5(report.encode()).hexdigest() not in lock:
        raise ValueError("dvc.lock is not of reports/evaluation.json; run `make run`, then `make tables` again")
    return lock


def take() -> None:
    """Copies reports/evaluation.json to docs/evaluation; of the shipped data set also the record and the examples.

    Raises:
        ValueError: If DVC's lock is not of this report, or an example is answered wrongly.
    """
    text = (DOCS.parent / "reports/evaluation.json").read_text()
    name = json.loads(text)["dataset"]
    EVALUATIONS.mkdir(exist_ok=True)
    (EVALUATIONS / f"{name}.json").write_text(text)
    if name == EXAMPLES_DATA.name:
        (EVALUATIONS / "dvc.lock").write_text(record(text))
        answers = examples(DOCS.parent / "models/retriever")
        (EVALUATIONS / "examples.json").write_text(json.dumps(answers, indent=2, ensure_ascii=False) + "\n")


def main() -> None:
    """Copies the last results when asked to, then redraws every page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--take", action="store_true", help="first take the results of the last run into docs/evaluation"
    )
    if parser.parse_args().take:
        take()
    for page in PAGES:
        page.write_text(rendered(page))


if __name__ == "__main__":
    main()
