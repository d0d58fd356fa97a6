"""What the finished trials of a study say together: summary.json, a page and a picture beside them.

Values of a query are averaged over seeds, and queries are resampled. All figures are in per cent or points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rabtriever.core.artifacts import atomic_write, write_json
from rabtriever.core.settings import ParamsError
from rabtriever.data.metrics import Interval, paired_bootstrap
from rabtriever.evaluation.gap import CONFIDENCE, SAMPLES, SEED, Share, gap, gap_closed
from research.definition import Study, Trial

Values = dict[str, float]
METRIC = "nDCG@10"


def write_summary(study: Study, finished: Mapping[Trial, dict[str, Any]]) -> dict[str, Any]:
    """Writes summary.json, README.md and differences.svg to research/results/<study>; returns the summary."""
    found = summarise(study, finished)
    folder = study.results
    write_json(folder / "summary.json", found)
    with atomic_write(folder / "README.md") as file:
        file.write(page(study.name, found))
    if any(row["student_vs"] for row in found["sets"].values()):
        draw_differences(found, folder / "differences.svg")
    return found


def summarise(study: Study, finished: Mapping[Trial, dict[str, Any]]) -> dict[str, Any]:
    """The content of summary.json.

    Raises:
        ParamsError: the seeds of a set have other test queries.
    """
    sets = {}
    for name in study.sets:
        if trials := [content for trial, content in finished.items() if trial.set == name]:
            sets[name] = _set(name, trials)
    devices = dict.fromkeys(content["device"] for content in finished.values())
    spent = sum(sum(content["seconds"].values()) for content in finished.values())
    return {
        "sets": sets,
        "command": f"make study STUDY={study.name}",
        "device": "; ".join(devices),
        "hours": round(spent / 3600, 2),
    }


def _set(name: str, trials: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if any(trial["queries"] != trials[0]["queries"] for trial in trials):
        raise ParamsError(
            f"{name}: the seeds have other test queries, expected the same; measure them on the same data"
        )
    points = {system: by_query(trials, system) for system in trials[0]["systems"]}
    lead = gap(points["teacher"], points["biencoder"]) if {"teacher", "biencoder"} <= set(points) else None
    three = [points.get(system) for system in ("student", "teacher", "biencoder")]
    closed = gap_closed(*three) if None not in three else None
    others = [system for system in points if system != "student"] if "student" in points else []
    return {
        "backbone": trials[0]["profile"],
        "num_queries": len(trials[0]["queries"]),
        "num_documents": trials[0]["num_documents"],
        "seeds": [trial["seed"] for trial in trials],
        "systems": {system: _system(trials, system, values) for system, values in points.items()},
        "gap": lead and difference(lead),
        "gap_closed": closed and _rounded(closed),
        "student_vs": {system: difference(paired(points["student"], points[system])) for system in others},
    }


def by_query(trials: Sequence[dict[str, Any]], system: str, metric: str = METRIC) -> Values:
    """A metric of each query in per cent, averaged over trials with the same queries."""
    values = 100 * np.mean([trial["per_query"][system][metric] for trial in trials], axis=0)
    return dict(zip(trials[0]["queries"], values.tolist(), strict=True))


def paired(ours: Values, theirs: Values) -> Interval:
    """Mean of ours less theirs by query, with its interval."""
    return paired_bootstrap(ours, theirs, SAMPLES, SEED, CONFIDENCE)


def difference(found: Interval) -> dict[str, float]:
    """A difference as the summary has it."""
    return {"difference": round(found.mean, 2), "low": round(found.low, 2), "high": round(found.high, 2)}


def _system(trials: Sequence[dict[str, Any]], system: str, points: Values) -> dict[str, float]:
    metrics = {metric: by_query(trials, system, metric) for metric in trials[0]["per_query"][system]}
    spread = paired(points, dict.fromkeys(points, 0.0))
    return {
        **{metric: round(float(np.mean(list(values.values()))), 2) for metric, values in metrics.items()},
        "ms_per_query": round(float(np.mean([trial["systems"][system]["ms_per_query"] for trial in trials])), 3),
        "low": round(spread.low, 2),
        "high": round(spread.high, 2),
    }


def _rounded(found: Share) -> dict[str, float]:
    return {name: round(value, 2) for name, value in found._asdict().items()}


def page(name: str, summary: Mapping[str, Any]) -> str:
    """The summary as Markdown."""
    sets = summary["sets"]
    systems = list(dict.fromkeys(system for row in sets.values() for system in row["systems"]))
    rivals = [system for system in systems if system != "student"]
    facts = ("backbone", "documents", "queries", "seeds")
    parts = [
        f"# Study `{name}`",
        f"`{summary['command']}` measured this on {summary['device']}, in {summary['hours']} hours. "
        "The page is generated. Figures are nDCG@10 in per cent, means over seeds.\n"
        "Intervals are of 95 %, from resampling queries. Bold differences exclude zero.",
        _table(("set", *facts, *systems), {key: [*_facts(row), *_each(row, systems)] for key, row in sets.items()}),
        "## What reading adds, and how much of it the student keeps",
        "The gap is the teacher less the bi-encoder, in points. "
        "The share that the student closes is told where the gap is significant.",
        _table(("set", "gap", "gap closed"), {key: [_signed(row["gap"]), _share(row)] for key, row in sets.items()}),
        "## The student less each other system, in points",
        "![differences](differences.svg)",
        _table(
            ("set", *rivals),
            {key: [_signed(row["student_vs"].get(one)) for one in rivals] for key, row in sets.items()},
        ),
        "## Milliseconds of one query",
        _table(("set", *systems), {key: _each(row, systems, "ms_per_query") for key, row in sets.items()}),
    ]
    return "\n\n".join(parts) + "\n"


def _table(titles: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *([key, *cells] for key, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(row: Mapping[str, Any]) -> list[str]:
    return [row["backbone"], f"{row['num_documents']:,}", f"{row['num_queries']:,}", str(len(row["seeds"]))]


def _each(row: Mapping[str, Any], systems: Sequence[str], field: str = METRIC) -> list[str]:
    return [f"{row['systems'][one][field]:.1f}" if one in row["systems"] else "–" for one in systems]


def _signed(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "–"
    text = f"{found['difference']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
    return (f"**{text}**" if found["low"] > 0 or found["high"] < 0 else text).replace("-", "−")


def _share(row: Mapping[str, Any]) -> str:
    found = row["gap_closed"]
    return "–" if found is None else f"{found['value']:.0f} % ({found['low']:.0f} to {found['high']:.0f})"


def draw_differences(summary: Mapping[str, Any], path: str | Path) -> None:
    """The student less each other system on every set, with the interval, as an SVG: a panel for each system."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = summary["sets"]
    rivals = list(dict.fromkeys(one for row in sets.values() for one in row["student_vs"]))
    columns = min(4, len(rivals))
    lines = -(-len(rivals) // columns)
    size = (2 + 2.4 * columns, 0.6 + lines * (0.8 + 0.26 * len(sets)))
    with matplotlib.rc_context({"svg.hashsalt": "rabtriever", "svg.fonttype": "none"}):
        figure, panels = pyplot.subplots(
            lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
        )
        for panel in panels.flat[len(rivals) :]:
            panel.set_axis_off()
        for panel, rival in zip(panels.flat, rivals, strict=False):
            for place, row in enumerate(sets.values()):
                _draw(panel, place, row["student_vs"].get(rival))
            panel.axvline(0, color="0.3", linewidth=0.8)
            panel.set_title(rival.replace("_", " "), fontsize="medium")
            panel.set_yticks(range(len(sets)), list(sets))
            panel.set_ylim(len(sets) - 0.5, -0.5)
        figure.suptitle("The student beats a system where a line is blue, and loses where it is orange")
        figure.supxlabel("student less the system, points of nDCG@10, with 95 % interval", fontsize="medium")
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


def _draw(panel: Any, place: int, found: Mapping[str, float] | None) -> None:
    if found is None:
        return
    colour = "#0072b2" if found["low"] > 0 else "#d55e00" if found["high"] < 0 else "#6e7781"
    face = "white" if colour == "#6e7781" else colour
    panel.plot([found["low"], found["high"]], [place, place], color=colour)
    panel.plot([found["difference"]], [place], marker="o", color=colour, markerfacecolor=face)
