"""Flow of stage register, `python -m flows.register`."""

from typing import Any

from prefect import flow

from flows.common import command, tracked
from rabtriever.ops import register as stage


@flow(name="register")
def register() -> dict[str, Any]:
    """Registers the retriever in MLflow with its metrics; the gate decides later whether it is served."""
    return tracked(stage, "register")


if __name__ == "__main__":
    command(register)
