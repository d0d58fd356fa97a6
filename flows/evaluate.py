"""Flow of stage evaluate, `python -m flows.evaluate`."""

from typing import Any

from prefect import flow

from flows.common import main, tracked
from rabtriever.evaluation import stage


@flow(name="evaluate")
def evaluate() -> dict[str, Any]:
    """What the stage's `run` returns."""
    return tracked(stage, "evaluate")


if __name__ == "__main__":
    main(evaluate)
