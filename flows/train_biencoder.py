"""Flow of stage train_biencoder, `python -m flows.train_biencoder`."""

from prefect import flow

from flows.common import main, tracked
from rabtriever.training.stages import train_biencoder as stage


@flow(name="train_biencoder")
def train_biencoder() -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "train_biencoder")


if __name__ == "__main__":
    main(train_biencoder)
