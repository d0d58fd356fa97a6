"""Fixtures of the page's tests: a project folder, with a registry and without. Imports wait until one is used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def page_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as a finished run leaves it; nobody may write there."""
    from tests.server.page_project import write_project

    folder = tmp_path_factory.mktemp("page")
    write_project(folder)
    return folder


@pytest.fixture(scope="session")
def page_registry(page_folder: Path, store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a registry of five versions; nobody may write there."""
    from rabtriever.data.beir_io import load_dataset
    from tests.server.page_project import write_registry

    folder = tmp_path_factory.mktemp("registry") / "project"
    shutil.copytree(page_folder, folder)
    (folder / "mlruns").mkdir()
    shutil.copy(store_template, folder / "mlruns/mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        write_registry(load_dataset(folder / "data/prepared"))
    return folder


@pytest.fixture
def page_project(page_registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project with its registry, as the working folder; a test may write there."""
    folder = tmp_path / "project"
    shutil.copytree(page_registry, folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def finished(page_folder: Path) -> Any:
    """The finished run of the project."""
    from rabtriever.server.project import Project

    return Project(page_folder).finished()
