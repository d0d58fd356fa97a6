"""Flow of stage register, `python -m flows.register`."""

from typing import Any

from prefect import flow

from flows.common import main, tracked
from rabtriever.ops import register as stage


@flow(name="register")
def register() -> dict[str, Any]:
    """What the stage's `run` returns."""
    return tracked(stage, "register")


if __name__ == "__main__":
    main(register)
