"""A retraining looks at the champion and the store before it computes anything, or says that all is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows import retrain
from flows.common import guard
from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.ops import registry
from tests.toy import set_params


def test_a_retraining_looks_at_the_champion_first(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """S05. Prevents "nothing to do" beside a champion that was changed, and stages that run before that is told."""
    retrain.retrain.fn()
    (registry.local_folder(registry.champion()) / "best.json").write_text("{}")
    for quality in (0.5, 0.9):
        set_params("index", quality=quality)
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_info, guard("retrain"):
            retrain.run_once(None)
        told = capfd.readouterr()
        assert exit_info.value.code == 1 and "the champion, version 1, is damaged" in told.err
        assert "nothing to do" not in told.out and "index" not in told.out
        with pytest.raises(ArtifactMismatchError, match="is damaged"):
            retrain.retrain.fn()


def test_an_idle_retraining_asks_the_champion(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """S05. Prevents "nothing to do" beside a champion that no longer answers."""
    retrain.retrain.fn()

    def silent(version: registry.RegisteredVersion) -> None:
        raise ArtifactMismatchError(f"{version} does not answer")

    monkeypatch.setattr(registry, "check_answers", silent)
    for call in (lambda: retrain.run_once(None), retrain.retrain.fn):
        with pytest.raises(ArtifactMismatchError, match="version 1 does not answer"):
            call()
    assert "nothing to do" not in capfd.readouterr().out


def test_a_lost_store_is_refused_before_anything_changes(project: Path) -> None:
    """S05. Prevents a lost registry from becoming an empty one, whose first version meets a lower bar."""
    retrain.retrain.fn()
    Path("mlruns/mlflow.db").unlink()
    before = Path("params.yaml").read_bytes()
    for call in (lambda: retrain.run_once("elsewhere", "minilm"), retrain.retrain.fn):
        with pytest.raises(FileNotFoundError, match="mlflow.db is missing, expected the one that"):
            call()
    assert not Path("mlruns/mlflow.db").exists() and Path("params.yaml").read_bytes() == before
