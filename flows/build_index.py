"""Flow of stage build_index, `python -m flows.build_index --round R`."""

from prefect import flow

from flows.common import given_round, main, tracked
from rabtriever.training.stages import build_index as stage


@flow(name="build_index")
def build_index(round: int) -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "build_index", round=round)


if __name__ == "__main__":
    main(build_index, round=given_round())
