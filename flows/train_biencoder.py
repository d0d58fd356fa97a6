"""Flow of stage train_biencoder, `python -m flows.train_biencoder`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import train_biencoder as stage


@flow(name="train_biencoder")
def train_biencoder() -> str:
    """Trains the bi-encoder, the baseline that a team would train instead."""
    return tracked(stage, "train_biencoder")


if __name__ == "__main__":
    command(train_biencoder)
