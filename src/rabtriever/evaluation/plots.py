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
