"""Flow of stage train_teacher, `python -m flows.train_teacher`."""

from prefect import flow

from flows.common import main, tracked
from rabtriever.training.stages import train_teacher as stage


@flow(name="train_teacher")
def train_teacher() -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "train_teacher")


if __name__ == "__main__":
    main(train_teacher)
