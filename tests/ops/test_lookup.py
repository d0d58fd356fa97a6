"""From a name to a retriever folder, with MLflow and without."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from rabtriever.ops import lookup, packaging, registry, tracking
from rabtriever.ops.lookup import find_retriever
from tests.ops.test_tracking import register


@pytest.fixture
def versions(store: Path) -> list[registry.RegisteredVersion]:
    """Two versions: the first is previous, the second the champion."""
    found = [register(0.5), register(0.6)]
    for version in found:
        registry.promote(version)
    return found


def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on MLflow is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)


@pytest.mark.parametrize("installed", [True, False], ids=["MLflow", "no MLflow"])
def test_every_name_gives_the_folder_of_its_version(
    versions: list[registry.RegisteredVersion], monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """Prevents an alias that means one version here and another in MLflow's own pages."""
    folders = {version.version: registry.local_folder(version) for version in versions}
    assert {name: registry.get(name).version for name in ("champion", "previous")} == {"champion": "2", "previous": "1"}
    if not installed:
        without_mlflow(monkeypatch)
    for name in ("champion", "2", "models:/rabtriever@champion", "models:/rabtriever/2"):
        found = find_retriever(name)
        assert (found.folder, found.version, found.note) == (folders["2"], "2", None)
    assert find_retriever("previous").folder == folders["1"]
    monkeypatch.setattr(packaging, "code_here", lambda: "0" * 64)
    assert "version 1 was registered by other code" in find_retriever("previous").note


def test_a_deleted_version_is_not_found(versions: list[registry.RegisteredVersion]) -> None:
    """Prevents answers from a version that somebody has deleted, which stays in the database."""
    tracking.client().delete_model_version(registry.MODEL, "1")
    for name in ("1", "7", "previous"):
        with pytest.raises(ValueError, match=f"the registry has no '{name}'"):
            find_retriever(name)


def test_a_version_without_files_is_told(versions: list[registry.RegisteredVersion]) -> None:
    """Prevents a message on a manifest where a whole version is gone."""
    shutil.rmtree(registry.local_folder(versions[1]))
    with pytest.raises(FileNotFoundError, match="version 2 has lost its files"):
        find_retriever("champion")


def test_another_form_of_the_database_is_left_to_mlflow(
    versions: list[registry.RegisteredVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents an upgrade of MLflow from making versions unreadable."""
    found = find_retriever("champion")
    with contextlib.closing(sqlite3.connect("mlruns/mlflow.db")) as database:
        database.execute("alter table model_version_tags rename to tags_of_versions")
        database.commit()
    asked = []

    def get(name: str) -> Any:
        asked.append(name)
        return versions[1]

    monkeypatch.setattr(registry, "get", get)
    assert find_retriever("champion") == found and asked == ["champion"]


def test_a_registry_on_a_server_needs_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a bare ModuleNotFoundError after a base install."""
    without_mlflow(monkeypatch)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ModuleNotFoundError, match=r"needs MLflow to be read; install rabtriever\[ops\]"):
        find_retriever("champion")


def test_a_folder_needs_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a search in a copied folder from asking for a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow leaves there what another test has set
    Path("mine").mkdir()
    Path("champion").mkdir()
    for name in ("mine", "./mine", str(tmp_path), Path("mine"), Path("champion"), "."):
        assert find_retriever(name) == lookup.Found(Path(name))
    with pytest.raises(FileNotFoundError, match="run `make run` first"):
        find_retriever("champion")
    with pytest.raises(FileNotFoundError, match="'chamption' is not a folder; expected champion, previous"):
        find_retriever("chamption")
    for uri in ("models:/other@champion", "models:/rabtriever", "models:rabtriever/1"):
        with pytest.raises(ValueError, match="expected models:/rabtriever/3 or models:/rabtriever@champion"):
            find_retriever(uri)
