"""Flow of stage distill, `python -m flows.distill_student --round R`."""

from prefect import flow

from flows.common import given_round, main, tracked
from rabtriever.training.stages import distill_student as stage


@flow(name="distill")
def distill(round: int) -> str:
    """What the stage's `run` returns."""
    return tracked(stage, "distill", round=round)


if __name__ == "__main__":
    main(distill, round=given_round())
