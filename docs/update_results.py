"""Writes the generated parts of docs/results.md from the summaries of the studies.

`python docs/update_results.py` writes them anew. A part stands between `<!-- results: NAME -->` and `<!-- end -->`;
NAME is a study of research/results, or `archive` for the study of 0.1. docs/update_tables.py writes the other tables.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "results.md"
RESULTS = DOCS.parent / "research/results"
ARCHIVE = DOCS.parent / "research/archive-0.1/results/cpu.json"
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {
    "alfred": "ALFRED",
    "apibench": "APIBench",
    "argkp": "ArgKP",
    "ecare": "e-CARE",
    "entailmentbank": "EntailmentBank",
    "esconv": "ESConv",
    "metatool": "MetaTool",
    "nfcorpus": "NFCorpus",
    "piqa": "PIQA",
    "saycan": "SayCan",
    "theoremqa": "TheoremQA",
}
SYSTEMS = {
    "bm25": "BM25",
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "biencoder_rerank": "bi-encoder, then teacher",
    "student": "student",
    "teacher": "teacher",
}
ARCHIVED = ("bm25", "biencoder", "biencoder_distilled", "student", "teacher")
RIVALS = {
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "distilled_calibrated": "distilled bi-encoder with the prior",
}


def readable(key: str) -> str:
    """The name of a row: `saycan-minilm` is `SayCan, MiniLM`."""
    name, _, backbone = key.partition("-")
    return NAMES.get(name, name) + (", MiniLM" if backbone else "")


def study(name: str) -> str:
    """The summary table of a study, or a sentence where the study has not been measured."""
    path = RESULTS / name / "summary.json"
    if not path.is_file():
        return f"The study `{name}` has no figures yet: `make study STUDY={name}` measures it."
    summary = json.loads(path.read_text(encoding="utf-8"))
    sets = summary["sets"]
    systems = [system for system in SYSTEMS if any(system in row["systems"] for row in sets.values())]
    titles = [
        "gap",
        "gap closed",
        "student − bi-encoder",
        "student − distilled bi-encoder",
        "ms, student",
        "ms, bi-encoder, then teacher",
    ]
    lines = _head(["queries", "seeds", *(SYSTEMS[system] for system in systems), *titles])
    for key, row in sets.items():
        cells = [f"{row['num_queries']:,}", str(len(row["seeds"])), *(_figure(row, system) for system in systems)]
        cells += [signed(row["gap"]), _share(row["gap_closed"])]
        cells += [signed(row["student_vs"].get(rival)) for rival in ("biencoder", "biencoder_distilled")]
        cells += [_figure(row, system, "ms_per_query") for system in ("student", "biencoder_rerank")]
        lines.append(_row(readable(key), cells))
    told = f"Measured on {summary['device']} in {summary['hours']} hours: `{summary['command']}`."
    backbones = ", ".join(dict.fromkeys(f"`{row['backbone']}`" for row in sets.values()))
    return "\n".join([*lines, "", f"Backbone: {backbones}. {told}"])


def archive() -> str:
    """nDCG@10 of every row of the study of 0.1, and the student's difference to three rivals."""
    figures = json.loads(ARCHIVE.read_text(encoding="utf-8"))
    titles = [*(SYSTEMS[system] for system in ARCHIVED), *(f"student − {name}" for name in RIVALS.values())]
    lines = _head(["queries", "seeds", *titles])
    for key, row in figures["summary"]["sets"].items():
        cells = [f"{row['num_queries']:,}", str(len(row["seeds"])), *(_figure(row, system) for system in ARCHIVED)]
        lines.append(_row(readable(key), [*cells, *(signed(archived(figures, key, rival)) for rival in RIVALS)]))
    return "\n".join(lines)


def archived(figures: dict[str, Any], key: str, rival: str) -> dict[str, float]:
    """The student's nDCG@10 less a rival's on one row of 0.1, in points: `difference`, `low` and `high`.

    The interval resamples groups of queries with the same relevant documents. A row with under ten groups has none of
    that kind, so its interval resamples single queries.
    """
    details = figures["details"]["sets"][key]
    found = figures["summary"]["sets"][key].get(f"student_vs_{rival}") or details["student_vs"][rival]
    return {**found, **(details["resampled"]["student_vs"][rival]["groups"] or {})}


def signed(found: dict[str, float] | None) -> str:
    """`+1.2 (+0.6 to +1.8)`, bold where the interval excludes zero; a dash for nothing."""
    if found is None:
        return "–"
    middle, low, high = (f"{found[name]:+.1f}".replace("-", "−") for name in ("difference", "low", "high"))
    text = f"{middle} ({low} to {high})"
    return f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text


def rendered(page: Path = PAGE) -> str:
    """The page with its generated parts written anew."""

    def part(match: re.Match[str]) -> str:
        text = archive() if match.group(2) == "archive" else study(match.group(2))
        return f"{match.group(1)}{text}\n{match.group(3)}"

    return BLOCK.sub(part, page.read_text(encoding="utf-8"))


def _head(titles: list[str]) -> list[str]:
    return [_row("set", titles), "|---|" + "---:|" * len(titles)]


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _figure(row: dict[str, Any], system: str, field: str = "nDCG@10") -> str:
    found = row["systems"].get(system)
    return "–" if found is None else f"{found[field]:.1f}"


def _share(found: dict[str, float] | None) -> str:
    return "–" if found is None else f"{found['value']:.0f} % ({found['low']:.0f} to {found['high']:.0f})"


def main() -> None:
    """Writes the page, and the pictures of the documentation."""
    import sys

    sys.path.insert(0, str(DOCS / "img"))
    import draw

    PAGE.write_text(rendered(), encoding="utf-8")
    draw.main()


if __name__ == "__main__":
    main()
