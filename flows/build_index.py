"""Flow of stage build_index, `python -m flows.build_index --round R`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import build_index as stage


@flow(name="build_index")
def build_index(round: int) -> str:
    """Builds the retriever folder from the student of the last round, ready to search."""
    return tracked(stage, "build_index", round=round)


if __name__ == "__main__":
    command(build_index)
