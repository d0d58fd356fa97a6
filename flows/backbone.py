"""Flow of stage backbone, `python -m flows.backbone`."""

from prefect import flow

from flows.common import main, tracked
from rabtriever.training.stages import backbone as stage


@flow(name="backbone")
def backbone() -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "backbone")


if __name__ == "__main__":
    main(backbone)
