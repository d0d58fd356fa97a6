"""Stage prepare: turns a raw folder in BEIR layout into checked data with three splits, and writes a data report."""

from __future__ import annotations

from typing import Any, NamedTuple

from rabtriever.core.progress import at_work
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data import beir_io, preparation
from rabtriever.data.data_docs import build_data_docs
from rabtriever.data.preparation import PrepareParams
from rabtriever.data.statistics import notices


class Sections(NamedTuple):
    """The sections of params.yaml that the stage reads."""

    prepare: PrepareParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> dict[str, Any]:
    """Writes data/prepared and reports/data.json; returns the data report."""
    params = sections.prepare
    print(f"prepare: reading and checking {params.source}", flush=True)
    with at_work(f"prepare: reading and checking {params.source}"):
        report = preparation.prepare_data(params, paths.prepared, paths.reports / "data.json")
    kept = report["kept_queries"]
    tracker.log_metrics({"documents": report["documents"], **{f"{split}_queries": kept[split] for split in kept}})
    tracker.set_tags({"data_hash": report["hash"]})
    tracker.log_artifact(paths.reports / "data.json")
    print(f"prepare: {report['documents']} documents; " + ", ".join(f"{kept[split]} {split} queries" for split in kept))
    for notice in notices(report):
        print(f"prepare: {notice}")
    return report


def data_docs(sections: Sections, paths: Paths) -> None:
    """Writes static pages on the data contract to reports/data_docs, also where the data break it."""
    params = sections.prepare
    raw = beir_io.load_dataset(params.source)
    dataset, _ = preparation.with_dev(raw, params.dev_fraction, params.max_dev_queries)
    print(f"data docs: open {build_data_docs(dataset, paths.reports / 'data_docs')} in a browser")
