"""Reports as pictures: quality of each system beside its price, and how the price grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SHOWN = ("nDCG@10", "MRR@10", "R@10", "S@1")
LINES = {
    "teacher": ("teacher, reads the documents", "tab:red", "o"),
    "teacher_cached": ("teacher, documents' keys and values cached", "tab:orange", "s"),
    "student": ("student, exact scan", "tab:blue", "^"),
    "biencoder": ("bi-encoder, inner products", "tab:green", "v"),
}


def draw_systems(report: Mapping[str, Any], path: str | Path) -> None:
    """Bars of four metrics per system, and the milliseconds of one query, as a PNG.

    Args:
        report: the content of reports/evaluation.json.
        path: where the picture goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(report["systems"])
    figure, (quality, price) = pyplot.subplots(1, 2, figsize=(11, 4), width_ratios=(3, 1.4), layout="constrained")
    width = 0.8 / len(SHOWN)
    for number, metric in enumerate(SHOWN):
        values = [report["systems"][name][metric] for name in names]
        quality.bar([place + number * width for place in range(len(names))], values, width, label=metric)
    quality.set_xticks([place + 1.5 * width for place in range(len(names))], names)
    quality.set_ylim(0, 100)
    quality.set_ylabel("per cent")
    quality.set_title(f"{report['dataset']}: {report['num_queries']} queries, {report['num_documents']} documents")
    quality.legend(ncols=len(SHOWN), fontsize="small", loc="upper left")
    price.barh(names, [max(report["systems"][name]["ms_per_query"], 1e-3) for name in names], color="0.5")
    price.set_xscale("log")
    price.invert_yaxis()
    price.set_title("milliseconds per query")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def draw_calibration(calibration: Mapping[str, Any], path: str | Path) -> None:
    """Share of right hits against their calibrated probability, and how many hits there are of each, as a PNG.

    Args:
        calibration: `calibration` of reports/evaluation.json.
        path: where the picture goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bins = calibration["bins"]
    figure, (share, count) = pyplot.subplots(
        2, 1, figsize=(5.2, 5.6), height_ratios=(3, 1), sharex=True, layout="constrained"
    )
    share.plot([0, 1], [0, 1], color="0.6", linestyle=":", label="as promised")
    share.plot([one["probability"] for one in bins], [one["right"] for one in bins], "o-", label="test queries")
    if calibration["threshold"] is not None:
        share.axvline(calibration["threshold"], color="tab:orange", linestyle="--", label="threshold")
    share.set_ylabel("share of hits that are right")
    share.set_title(f"Calibration on test queries: Brier score {calibration['brier']:.3f}", fontsize="medium")
    share.set_xlim(0, 1)
    share.set_ylim(0, 1)
    share.legend(fontsize="small")
    count.bar([(one["from"] + one["to"]) / 2 for one in bins], [one["hits"] for one in bins], 0.09, color="0.5")
    count.set_yscale("log")
    count.set_ylim(bottom=0.5)  # a single hit is seen
    count.set_ylabel("hits")
    count.set_xlabel("relevance_score")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def draw_complexity(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """The online cost of one query against corpus size and document length, both scales logarithmic, as a PNG.

    Args:
        rows: what `complexity.measure_complexity` returns.
        path: where the picture goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    fixed = {"documents": "document_tokens", "document_tokens": "documents"}
    labels = {"documents": "documents in the corpus", "document_tokens": "tokens of a document"}
    titles = {"documents": "corpus size, documents of {:,} tokens", "document_tokens": "length, {:,} documents"}
    for panel, (varied, held) in zip(panels, fixed.items(), strict=True):
        shown = [row for row in rows if row["varied"] == varied]
        for system, (_, colour, marker) in LINES.items():
            _draw_cost([row for row in shown if row["system"] == system], varied, colour, marker, panel)
        encoding = [row for row in shown if row["system"] == "student"]
        places, spent = [row[varied] for row in encoding], [row["encoding_milliseconds"] for row in encoding]
        panel.plot(places, spent, color="0.4", linestyle=":")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel(labels[varied])
        panel.set_title(titles[varied].format(shown[0][held]), fontsize="medium")
        panel.grid(which="major", color="0.9")
    panels[1].set_xticks(places, [str(place) for place in places])
    panels[1].minorticks_off()
    panels[0].set_ylabel("milliseconds per query, encoding included")
    handles = [
        pyplot.Line2D([], [], color=colour, marker=marker, label=name) for name, colour, marker in LINES.values()
    ]
    handles.append(pyplot.Line2D([], [], color="0.4", linestyle=":", label="encoding the query alone"))
    handles.append(
        pyplot.Line2D([], [], color="0.4", marker="o", markerfacecolor="white", label="scaled up from a sample")
    )
    figure.legend(handles=handles, ncols=3, fontsize="small", loc="outside lower center")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _draw_cost(rows: Sequence[Mapping[str, Any]], varied: str, colour: str, marker: str, panel: Any) -> None:
    """One system's line; points that were scaled up from a sample are hollow."""
    places = [row[varied] for row in rows]
    values = [row["milliseconds"] + row["encoding_milliseconds"] for row in rows]
    panel.plot(places, values, color=colour)
    for place, value, row in zip(places, values, rows, strict=True):
        face = "white" if row["extrapolated"] else colour
        panel.plot([place], [value], color=colour, marker=marker, markerfacecolor=face)
