"""Flow of stage distill, `python -m flows.distill_student --round R`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import distill_student as stage


@flow(name="distill")
def distill(round: int) -> str:
    """Distils the teacher into the student on the candidates of a round."""
    return tracked(stage, "distill", round=round)


if __name__ == "__main__":
    command(distill)
