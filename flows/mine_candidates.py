"""Flow of stage mine, `python -m flows.mine_candidates --round R`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import mine_candidates as stage


@flow(name="mine")
def mine(round: int) -> str:
    """Mines candidates with the student of the round before, and has the teacher score them."""
    return tracked(stage, "mine", round=round)


if __name__ == "__main__":
    command(mine)
