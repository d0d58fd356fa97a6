"""Flow of stage train_teacher, `python -m flows.train_teacher`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import train_teacher as stage


@flow(name="train_teacher")
def train_teacher() -> str:
    """Trains the teacher, a generative reranker, from the bi-encoder."""
    return tracked(stage, "train_teacher")


if __name__ == "__main__":
    command(train_teacher)
