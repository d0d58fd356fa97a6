"""What a retraining prints at its end: the evaluation table, the promotion, sample rankings, what to type next."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rabtriever.data.metrics import METRICS
from rabtriever.ops import registry

_SYSTEMS = ("frequency", "bm25", "biencoder", "student", "teacher")
_HEADINGS = {"ms_per_query": "ms/query", "bytes_per_document": "bytes/doc"}


def evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """The table of reports/evaluation.json in columns of fixed width."""
    columns = [*METRICS, *_HEADINGS]
    known = evaluation["systems"]
    names = [*(name for name in _SYSTEMS if name in known), *(name for name in known if name not in _SYSTEMS)]
    rows = [["system", *(_HEADINGS.get(column, column) for column in columns)]]
    rows += [[name, *(_number(column, known[name].get(column)) for column in columns)] for name in names]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    title = (
        f"{evaluation['dataset']}, {evaluation['split']}: {evaluation['num_queries']} queries, "
        f"{evaluation['num_documents']} documents (metrics in per cent)"
    )
    retention = evaluation.get("retention")
    kept = [] if retention is None else [f"retention: the student keeps {retention:.1f} % of the teacher's nDCG@10"]
    below = [*kept, *_warning(known)]
    return "\n".join([title, "", lines[0], "-" * len(lines[0]), *lines[1:], *([""] if below else []), *below])


def _warning(systems: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What to change where the teacher has become worse than the bi-encoder that it was trained from."""
    teacher, start = (systems.get(name, {}).get("nDCG@10") for name in ("teacher", "biencoder"))
    if teacher is None or start is None or teacher >= start:
        return []
    return [
        f"the teacher ranks below the bi-encoder that it was trained from (nDCG@10 {teacher:.1f} and {start:.1f}):",
        "its hard negatives may be right ones that nobody judged; docs/guides/troubleshooting.md says what to change",
    ]


def _number(column: str, value: float | None) -> str:
    if value is None:
        return "-"
    return format(value, {"bytes_per_document": ",.0f", "ms_per_query": ".2f"}.get(column, ".1f"))


def promotion_text(version: registry.RegisteredVersion, decision: Mapping[str, Any] | None) -> str:
    """Which version is in service and why, with what was decided on the present one."""
    champion = registry.champion()
    lines = []
    if decision is None:
        lines.append(f"{version} was never put before the gate")
    else:
        verdict = "promoted" if decision["promoted"] else "refused"
        when = decision["decided_at"][:16].replace("T", " ")
        lines.append(f"{version} was {verdict} ({when} UTC): {decision['reason']}")
    if champion is None:
        lines.append("no version is champion")
    elif champion.version == version.version:
        lines.append(f"champion: {version}, this retriever (models:/{registry.MODEL}@{registry.CHAMPION})")
    else:
        if registry.is_withdrawn(version):
            lines.append(
                f"{version} was taken out of service; `rabtriever rollback --to {version.version}` puts it back"
            )
        alike = champion.retriever_hash == version.retriever_hash
        what = "the same retriever with other code" if alike else "another retriever than the one in models/retriever"
        lines.append(f"champion: {champion}, {what}")
    return "\n".join(textwrap.fill(line, 118, subsequent_indent="  ") for line in lines)


def samples_text(samples: Iterable[Mapping[str, Any]], queries: int = 3, documents: int = 5) -> str:
    """The first documents of a few test queries, those judged relevant with their grade."""
    blocks = []
    for sample in list(samples)[:queries]:
        lines = [textwrap.shorten(sample["query"], 118, placeholder=" …")]
        for rank, hit in enumerate(sample["hits"][:documents], start=1):
            grade = f"[{hit['grade']}]" if hit.get("grade") else "   "
            text = ": ".join(filter(None, (hit["title"], hit["text"])))
            lines.append(f"  {rank}. {hit['score']:8.3f} {grade} {textwrap.shorten(text, 96, placeholder=' …')}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def next_commands(query: str) -> str:
    """Commands that work from the repository root without an activated environment; `query` is an example to search."""
    folder = Path(sys.executable).parent
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    commands = {
        f"{folder}/rabtriever search {shlex.quote(query)}": "ask the champion",
        "make ui": "runs and versions, at http://127.0.0.1:5000",
        f"PATH={folder}:$PATH dvc repro": "the stages alone, after an edit to code, data or params.yaml",
        "make run DATA=path/to/folder": "the same for another data set in BEIR layout",
        f"{folder}/rabtriever rollback": "put the previous champion back",
    }
    return "\n".join(f"  {command}\n      {purpose}" for command, purpose in commands.items())


def section(title: str, text: str) -> str:
    """A titled block."""
    return f"\n== {title} ==\n{text}"
