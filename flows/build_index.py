"""Flow of stage build_index, `python -m flows.build_index`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import build_index as stage


@flow(name="build_index")
def build_index() -> str:
    """Builds the retriever folder from the student, ready to search."""
    return tracked(stage, "build_index")


if __name__ == "__main__":
    command(build_index)
