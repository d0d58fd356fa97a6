"""Writes the evaluation tables of README.md and docs/ from the committed docs/evaluation/*.json.

`python docs/update_tables.py` redraws the tables; with `--take` it first copies reports/evaluation.json there. A table
stands between `<!-- table: NAME -->` and `<!-- end -->`, NAME being a file of docs/evaluation.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
EVALUATIONS = DOCS / "evaluation"
PAGES = [DOCS.parent / "README.md"]
COLUMNS = ("nDCG@10", "MRR@10", "R@1", "R@10", "R@100", "S@1", "ms_per_query", "bytes_per_document")
TITLES = {"ms_per_query": "ms/query", "bytes_per_document": "bytes/doc"}
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(report: dict) -> str:
    """A Markdown table of one evaluation report, with a line that says what it was measured on."""
    lines = [
        f"`{report['dataset']}`: {report['num_queries']} {report['split']} queries, "
        f"{report['num_documents']} documents{_kept(report['retention'])}.",
        "",
        "| | " + " | ".join(TITLES.get(column, column) for column in COLUMNS) + " |",
        "|---|" + "---:|" * len(COLUMNS),
    ]
    for name, row in report["systems"].items():
        lines.append(f"| {name} | " + " | ".join(_cell(column, row[column]) for column in COLUMNS) + " |")
    return "\n".join(lines)


def _kept(retention: float | None) -> str:
    return "" if retention is None else f"; the student keeps **{retention:.1f} %** of the teacher's nDCG@10"


def _cell(column: str, value: float) -> str:
    if column == "bytes_per_document":
        return f"{value:,.0f}"
    return f"{value:.2f}" if column == "ms_per_query" else f"{value:.1f}"


def rendered(page: Path) -> str:
    """The page with its tables drawn anew."""

    def fill(match: re.Match[str]) -> str:
        report = json.loads((EVALUATIONS / f"{match.group(2)}.json").read_text())
        return f"{match.group(1)}{table(report)}\n{match.group(3)}"

    return BLOCK.sub(fill, page.read_text())


def main() -> None:
    """Copies the last report when asked to, then redraws every page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--take", action="store_true", help="first copy reports/evaluation.json to docs/evaluation")
    if parser.parse_args().take:
        text = (DOCS.parent / "reports/evaluation.json").read_text()
        name = json.loads(text)["dataset"]
        EVALUATIONS.mkdir(exist_ok=True)
        (EVALUATIONS / f"{name}.json").write_text(text)
    for page in PAGES:
        page.write_text(rendered(page))


if __name__ == "__main__":
    main()
