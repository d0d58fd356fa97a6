"""What a retraining prints at its end: the evaluation table, the promotion, sample rankings, what to type next."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.core.stages import Paths
from rabtriever.data.metrics import METRICS
from rabtriever.evaluation.latency import BUSY
from rabtriever.ops import registry, tracking
from rabtriever.ops.terminal import one_line
from rabtriever.ops.version_files import LOST_ADVICE

_SYSTEMS = ("bm25", "biencoder", "student", "teacher")
_HEADINGS = {"ms_per_query": "ms/query", "ms_per_query_p95": "p95", "bytes_per_document": "bytes/doc"}
_WIDTH = 118


def evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """The table of reports/evaluation.json in columns of fixed width, with colours where it goes to a terminal."""
    known = evaluation["systems"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("system", no_wrap=True)
    for column in (*METRICS, *_HEADINGS):
        table.add_column(_HEADINGS.get(column, column), justify="right", no_wrap=True)
    names = [*(name for name in _SYSTEMS if name in known), *(name for name in known if name not in _SYSTEMS)]
    for name in names:
        cells = (_number(column, known[name].get(column)) for column in (*METRICS, *_HEADINGS))
        table.add_row(name, *cells, style="bold" if name == "student" else None)
    title = (
        f"{one_line(evaluation['dataset'])}, {evaluation['split']}: {evaluation['num_queries']} queries, "
        f"{evaluation['num_documents']} documents (metrics in per cent)"
    )
    calibrated = _calibration(evaluation.get("calibration"))
    below = [*_gap(evaluation), *calibrated, *_warning(known), *_busy(evaluation.get("timing", {}))]
    return "\n".join([title, "", _drawn(table), *([""] if below else []), *below])


def _gap(evaluation: Mapping[str, Any]) -> list[str]:
    """What reading adds to the bi-encoder in points of nDCG@10, and what the student keeps of it."""
    gap, closed, over = (evaluation.get(name) for name in ("gap", "gap_closed", "student_vs_biencoder"))
    if gap is None or over is None:
        return []
    lines = [f"student - bi-encoder: {_interval(over, '+.1f')} points of nDCG@10 (95 % interval)"]
    if closed is None:
        return [*lines, f"teacher - bi-encoder: {_interval(gap, '+.1f')}: no significant gap for the student to close"]
    return [*lines, f"teacher - bi-encoder: {_interval(gap, '+.1f')}; gap closed: {_interval(closed, '.0f')} %"]


def _interval(found: Mapping[str, float], form: str) -> str:
    middle = found.get("mean", found.get("value"))
    return f"{middle:{form}} ({found['low']:{form}} to {found['high']:{form}})"


def _drawn(table: Table) -> str:
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)  # a pipe has none of its own
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def _calibration(found: Mapping[str, Any] | None) -> list[str]:
    """How far the calibrated scores hold on the test queries; nothing where there are none."""
    if found is None:
        return []
    line = f"calibration: Brier score {found['brier']:.3f}, error {found['expected_calibration_error']:.3f}; "
    wanted = f"{100 * found['wanted_precision']:g} %"
    if found["precision"] is None:
        return [f"{line}no hit is above a threshold for the wanted precision of {wanted}"]
    right, answered = 100 * found["precision"], 100 * found["answered"]
    line += f"from {found['threshold']:.2f} on {right:.1f} % of hits are right (wanted {wanted}), "
    return [f"{line}for {answered:.1f} % of queries"]


def _busy(timing: Mapping[str, Any]) -> list[str]:
    """A note where other programs were at work while the latencies were measured."""
    others = timing.get("others_cpu_percent", 0.0)
    if others < BUSY:
        return []
    return [
        f"the machine was busy: other programs used {others:.0f} % of the processors when latencies were measured;",
        "for others to rely on, measure again on an idle machine: dvc repro --force --single-item evaluate",
    ]


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
    return format(value, ",.0f" if column == "bytes_per_document" else ".2f" if column in _HEADINGS else ".1f")


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
        lines = [textwrap.shorten(one_line(sample["query"]), 118, placeholder=" …")]
        for rank, hit in enumerate(sample["hits"][:documents], start=1):
            grade = f"[{hit['grade']}]" if hit.get("grade") else "   "
            text = one_line(": ".join(filter(None, (hit["title"], hit["text"]))))
            lines.append(f"  {rank}. {hit['score']:8.3f} {grade} {textwrap.shorten(text, 96, placeholder=' …')}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def results_text(version: registry.RegisteredVersion, paths: Paths) -> str:
    """Where everything is that a run leaves, and when it was made.

    Args:
        version: the registered version of the retriever in models/retriever.
        paths: of the pipeline.
    """
    places = {
        paths.retriever: "the retriever, ready to search",
        paths.reports / "evaluation.json": "the table above",
        paths.reports / "plots/systems.png": "the table as a picture",
        paths.reports / "runs": "rankings of all systems, as TREC runs",
        paths.reports / "promotion.json": "what the gate decided last",
    }
    rows = [(_time(path), str(path), what) for path, what in places.items() if path.exists()]
    rows.append(("", f"models:/{registry.MODEL}/{version.version}", _registered(version)))
    rows.append(("", tracking.tracking_uri(), "runs and registry of MLflow; `make ui` shows them"))
    width = max(len(place) for _, place, _ in rows)
    return "\n".join(f"{when:16}  {place.ljust(width)}  {what}" for when, place, what in rows)


def _registered(version: registry.RegisteredVersion) -> str:
    """What to say of a version: whether its files are there is looked at, as another program may have removed them."""
    try:
        registry.local_folder(version)
    except FileNotFoundError:
        return f"a version that has lost its files; {LOST_ADVICE}"
    except ArtifactMismatchError as error:
        return f"a version that cannot be used: {error}"
    return "the retriever in the registry"


def _time(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).strftime("%Y-%m-%d %H:%M")


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
