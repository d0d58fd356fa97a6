"""What the registry makes of a store that fails and of a version that answers with nothing usable."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.ops import registry
from tests.ops.test_tracking import register
from tests.toy import ToyRetriever


@pytest.mark.parametrize("name", ["champion", "1"])
def test_a_store_that_fails_is_no_empty_one(store: Path, name: str) -> None:
    """Prevents a gate that sees no champion because the store was out of order, and promotes without comparison."""
    from mlflow.exceptions import MlflowException

    registry.promote(register(0.5))
    assert registry.get(name).version == "1"
    with contextlib.closing(sqlite3.connect("mlruns/mlflow.db")) as database:
        for table in ("registered_model_aliases", "model_versions"):
            database.execute(f"drop table {table}")
        database.commit()
    with pytest.raises(MlflowException, match="no such table"):
        registry.get(name)


@pytest.mark.parametrize("scores", [[], [float("nan")], [float("inf")]])
def test_an_answer_of_no_use_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Prevents promoting a version that loads and then finds nothing, or scores that are no numbers."""
    version = register(0.5)
    registry.check_answers(version)

    def useless(self: ToyRetriever, queries: list[str], k: int = 10) -> list[list[Any]]:
        return [[self._hit("d05", score) for score in scores] for _ in queries]

    monkeypatch.setattr(ToyRetriever, "search", useless)
    with pytest.raises(ArtifactMismatchError, match="version 1 answers .*expected one document with a finite score"):
        registry.check_answers(version)


@pytest.mark.parametrize("hits", [[{"doc_id": "d05"}], [{"score": None}], [["d05", 0.5]], None])
def test_answer_of_other_code_without_a_score_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch, hits: object
) -> None:
    """Prevents a bare KeyError of a version whose own, older code answers in another form."""
    version = register(0.5)
    monkeypatch.setattr(registry, "ask", lambda folder, query, k: hits)
    with pytest.raises(ArtifactMismatchError, match="version 1 does not answer: .*choose another version"):
        registry.check_answers(version)
