"""Stage prepare: a raw folder in BEIR layout to checked data with train, dev and test splits, and a data report.

Run as `python -m flows.prepare`. With `--data-docs` it shows the data contract and its outcome as static pages under
reports/data_docs instead, also where the data break it, and leaves the prepared data as they are.
"""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow

from flows.common import PARAMS, PREPARED, REPORTS, main
from rabtriever import checks, preparation, records
from rabtriever.params import load_params
from rabtriever.preparation import PrepareParams
from rabtriever.tracking import stage_run


@flow(name="prepare")
def prepare() -> dict[str, Any]:
    """The data report, after writing data/prepared and reports/data.json."""
    params = load_params(PrepareParams, "prepare", PARAMS)
    with stage_run("prepare", params) as run:
        print(f"prepare: reading and checking {params.source}", flush=True)
        report = preparation.prepare_data(params, PREPARED, REPORTS / "data.json")
        kept = report["kept_queries"]
        run.log_metrics({"documents": report["documents"], **{f"{split}_queries": kept[split] for split in kept}})
        run.set_tags({"data_hash": report["hash"]})
        run.log_artifact(REPORTS / "data.json")
    print(f"prepare: {report['documents']} documents; " + ", ".join(f"{kept[split]} {split} queries" for split in kept))
    return report


@flow(name="data-docs")
def data_docs() -> None:
    """Builds the static pages on the source folder's data under reports/data_docs."""
    params = load_params(PrepareParams, "prepare", PARAMS)
    raw = records.load_dataset(params.source)
    dataset, _ = preparation.with_dev(raw, params.dev_fraction, params.max_dev_queries)
    print(f"data docs: open {checks.build_data_docs(dataset, REPORTS / 'data_docs')} in a browser")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.prepare", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data-docs", action="store_true", help="show the data contract as pages under reports/data_docs"
    )
    main(data_docs if parser.parse_args().data_docs else prepare)
