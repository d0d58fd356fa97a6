"""Flow of stage evaluate, `python -m flows.evaluate`."""

from typing import Any

from prefect import flow

from flows.common import command, tracked
from rabtriever.evaluation import stage


@flow(name="evaluate")
def evaluate() -> dict[str, Any]:
    """Measures all systems on the test queries: table, runs, per-query metrics and plots under reports."""
    return tracked(stage, "evaluate")


if __name__ == "__main__":
    command(evaluate)
