"""What a stage of the pipeline is given: where it reads and writes, its settings, and what it reports to.

A stage is a function `run(sections, paths, tracker)`. `sections` holds one section of params.yaml per field. Nothing
here knows Prefect, DVC or MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Paths(NamedTuple):
    """Files and folders of the pipeline, relative to the repository root by default."""

    params: Path = Path("params.yaml")
    prepared: Path = Path("data/prepared")
    embeddings: Path = Path("data/embeddings")
    candidates: Path = Path("data/candidates")
    biencoder: Path = Path("models/biencoder")
    teacher: Path = Path("models/teacher")
    student: Path = Path("models/student")
    retriever: Path = Path("models/retriever")
    reports: Path = Path("reports")
    checkpoints: Path = Path(".cache/checkpoints")

    @classmethod
    def below(cls, root: str | Path) -> Paths:
        """The pipeline's files and folders below another root."""
        return cls(*(Path(root) / path for path in cls()))


class Tracker(Protocol):
    """Where a stage reports; `rabtriever.ops.tracking.StageRun` writes it to MLflow."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Takes numbers by name."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Takes facts by name."""

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Takes a copy of a file or folder."""

    def lightning_logger(self) -> Any:
        """A Lightning logger, or False for none."""


class NoTracker:
    """A tracker that keeps nothing: a stage runs without MLflow."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """See Tracker."""

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """See Tracker."""

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """See Tracker."""

    def lightning_logger(self) -> Any:
        """See Tracker."""
        return False
