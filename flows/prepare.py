"""Flow of stage prepare, `python -m flows.prepare`; with --data-docs, pages on the data contract instead."""

from typing import Any

from prefect import flow

from flows.common import command, tracked
from rabtriever.core.settings import load_sections
from rabtriever.core.stages import Paths
from rabtriever.data import stage


@flow(name="prepare")
def prepare() -> dict[str, Any]:
    """Checks the data set of params.yaml against the data contract, and writes it with train, dev and test splits."""
    return tracked(stage, "prepare")


@flow(name="data-docs")
def data_docs() -> None:
    """Shows the data contract and its outcome on the data set of params.yaml as pages in reports/data_docs."""
    paths = Paths()
    stage.data_docs(load_sections(stage.Sections, paths.params), paths)


if __name__ == "__main__":
    command(prepare, data_docs)
