"""The figures of a study as pictures: the summary's and the details' of summary.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.goals import DEFAULT, RIVAL_TITLES
from research.summary import student_changes, systems_measured

READABLE = {
    "bm25": "BM25",
    "zeroshot": "zero-shot",
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "biencoder_calibrated": "bi-encoder with its terms",
    "biencoder_sentence_transformers": "bi-encoder, sentence-transformers",
    "distilled_calibrated": "distilled bi-encoder with its terms",
    "late_interaction": "late interaction",
    "student_paper": "student, the paper's predictor",
    "teacher_dpo": "teacher with DPO",
}


def draw_quality(summary: Mapping[str, Any], path: str | Path) -> None:
    """nDCG@10 of every system on every set, with its interval, as a PNG: one panel per set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = summary["sets"]
    columns = min(4, max(1, len(sets)))
    rows = -(-len(sets) // columns)
    systems = systems_measured(summary)
    height = 1.1 + 0.24 * len(systems)
    figure, panels = pyplot.subplots(
        rows,
        columns,
        figsize=(max(6.0, 1.6 + 2.7 * columns), height * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel in panels.flat[len(sets) :]:
        panel.set_axis_off()
    for panel, (name, row) in zip(panels.flat, sets.items(), strict=False):
        for place, system in enumerate(systems):
            if values := row["systems"].get(system):
                _draw_interval(panel, place, values["nDCG@10"], values, _colour(system))
        names = [READABLE.get(system, system) for system in systems]
        _label(panel, f"{name}\n{row['backbone']}, {row['num_documents']:,} documents", names)
    figure.suptitle("How well each system ranks: further right is better", fontsize="medium")
    _save(figure, "nDCG@10 in per cent, mean over seeds, with the 95 % interval over queries", path)


def draw_rivals(summary: Mapping[str, Any], details: Mapping[str, Any], path: str | Path) -> bool:
    """How far the student is above each rival on each set, with the paired interval, as a PNG: a panel per rival.

    Returns:
        Whether there was anything to draw: a study of rivals alone has no student.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    changes = student_changes(summary, details)
    rivals = [rival for rival in RIVAL_TITLES if any(row[rival] for row in changes.values())]
    if not rivals:
        return False
    figure, panels = pyplot.subplots(
        1,
        len(rivals),
        figsize=(max(6.0, 1.8 + 2.5 * len(rivals)), 1.0 + 0.24 * len(changes)),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, rival in zip(panels[0], rivals, strict=True):
        for place, row in enumerate(changes.values()):
            _draw_change(panel, place, row[rival])
        panel.axvline(0, color="0.3", linewidth=0.8)
        title = RIVAL_TITLES[rival].replace(" with", "\nwith")
        _label(panel, f"student − {title}", list(changes))
    figure.suptitle("The student beats a rival where a line is blue, and loses where it is orange", fontsize="medium")
    _save(figure, "difference of nDCG@10 in points, with the 95 % interval over queries", path)
    return True


def draw_ablations(summary: Mapping[str, Any], details: Mapping[str, Any], path: str | Path) -> None:
    """How each ablation changes nDCG@10 on each set, with the paired interval, as a PNG.

    The student's, or where it was not measured that of the first system that was.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    tables = details["ablations"]
    names = [name for name in dict.fromkeys(name for rows in tables.values() for name in rows) if name != DEFAULT]
    if details["split"] != "dev":
        names = [name for name in names if any(name in rows for rows in summary["ablations"].values())] or names
    figure, panels = pyplot.subplots(
        1,
        len(tables),
        figsize=(max(6.0, 1.8 + 2.6 * len(tables)), 1.0 + 0.24 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, (name, rows) in zip(panels[0], tables.items(), strict=True):
        panel.set_xscale("symlog", linthresh=1.0)  # most differ by tenths of a point, a few by fifty
        panel.xaxis.set_major_locator(ticker.FixedLocator([-50, -20, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 20, 50]))
        panel.xaxis.set_major_formatter("{x:g}")
        for place, ablation in enumerate(names):
            systems = rows.get(ablation, {}).get("systems", {})
            _draw_change(panel, place, systems.get("student") or next(iter(systems.values()), None))
        panel.axvline(0, color="0.3", linewidth=0.8)
        default = summary["ablations"].get(name, {}).get(DEFAULT)  # a student's: none where none is measured
        titled = f"{name} (default {default['nDCG@10']:.1f})" if default and details["split"] != "dev" else name
        _label(panel, titled, names)
    figure.suptitle("A changed setting helps where a line is blue, harms where it is orange", fontsize="medium")
    whose = "nDCG@10 of the system an ablation is about" if details["split"] == "dev" else "the student's nDCG@10"
    _save(figure, f"change of {whose} in points, logarithmic beyond one, with the 95 % interval over queries", path)


def _label(panel: Any, title: str, rows: Sequence[str]) -> None:
    """What all panels have: a title, the names of the rows, a grid."""
    panel.set_yticks(range(len(rows)), rows)
    panel.set_title(title, fontsize="small")
    panel.grid(axis="x", color="0.9")
    panel.tick_params(labelsize="small")


def _save(figure: Any, label: str, path: str | Path) -> None:
    """Writes a figure whose panels share their rows, the first of them at the top."""
    from matplotlib import pyplot

    figure.axes[0].invert_yaxis()
    figure.supxlabel(label, fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_change(panel: Any, place: int, change: Mapping[str, float] | None) -> None:
    """A difference: blue where it is significantly above zero, orange below, grey where the interval holds zero."""
    if change is None:
        return
    colour = "tab:orange" if change["high"] < 0 else "tab:blue" if change["low"] > 0 else "0.5"
    _draw_interval(panel, place, change["difference"], change, colour)


def _draw_interval(panel: Any, place: int, middle: float, interval: Mapping[str, float], colour: str) -> None:
    panel.plot([interval["low"], interval["high"]], [place, place], color=colour, linewidth=2.5, alpha=0.5)
    panel.plot([middle], [place], "o", color=colour, markersize=5)


def _colour(system: str) -> str:
    """Students blue, teachers orange, bi-encoders purple, late interaction pink, what is not trained here grey."""
    families = {
        "student": "tab:blue",
        "teacher": "tab:orange",
        "biencoder": "tab:purple",
        "distilled": "tab:purple",
        "late": "tab:pink",
    }
    return families.get(system.split("_")[0], "0.45")
