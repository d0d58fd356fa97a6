"""The evaluation report as a picture: quality of each system beside its price."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN = ("nDCG@10", "MRR@10", "R@10", "S@1")


def draw_systems(report: Mapping[str, Any], path: str | Path) -> None:
    """Bars of four metrics per system, and the milliseconds of one query, as a PNG; rows with the prior are left out.

    Args:
        report: the content of reports/evaluation.json.
        path: where the picture goes.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in report["systems"] if not name.endswith("_prior")]
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
