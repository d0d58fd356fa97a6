"""Flow of stage mine, `python -m flows.mine_candidates`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import mine_candidates as stage


@flow(name="mine")
def mine() -> str:
    """Encodes the corpus, mines candidates with the student, and has the teacher score them."""
    return tracked(stage, "mine")


if __name__ == "__main__":
    command(mine)
