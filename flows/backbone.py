"""Flow of stage backbone, `python -m flows.backbone`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import backbone as stage


@flow(name="backbone")
def backbone() -> str:
    """Takes or builds the language model that everything starts from, and warms it up on the training pairs."""
    return tracked(stage, "backbone")


if __name__ == "__main__":
    command(backbone)
