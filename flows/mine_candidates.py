"""Flow of stage mine, `python -m flows.mine_candidates --round R`."""

from prefect import flow

from flows.common import given_round, main, tracked
from rabtriever.training.stages import mine_candidates as stage


@flow(name="mine")
def mine(round: int) -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "mine", round=round)


if __name__ == "__main__":
    main(mine, round=given_round())
