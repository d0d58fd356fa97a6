"""Flow of stage distill, `python -m flows.distill_student`."""

from prefect import flow

from flows.common import command, tracked
from rabtriever.training.stages import distill_student as stage


@flow(name="distill")
def distill() -> str:
    """Distils the teacher into the student on the mined candidates."""
    return tracked(stage, "distill")


if __name__ == "__main__":
    command(distill)
