"""Flow of stage prepare, `python -m flows.prepare`."""

import argparse
from typing import Any

from prefect import flow

from flows.common import main, tracked
from rabtriever.core.settings import load_sections
from rabtriever.core.stages import Paths
from rabtriever.data import stage


@flow(name="prepare")
def prepare() -> dict[str, Any]:
    """What the stage's `run` returns."""
    return tracked(stage, "prepare")


@flow(name="data-docs")
def data_docs() -> None:
    """Static pages on the source folder's data, under reports/data_docs."""
    paths = Paths()
    stage.data_docs(load_sections(stage.Sections, paths.params), paths)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.prepare", description=__doc__)
    parser.add_argument("--data-docs", action="store_true", help="show the data contract as pages in reports/data_docs")
    main(data_docs if parser.parse_args().data_docs else prepare)
