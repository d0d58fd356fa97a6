"""`rabtriever init`: what a new project is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rabtriever.cli import main, project
from tests.toy import ROOT


def test_a_new_project_has_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a project whose first `dvc repro` ends at a file that only the repository has."""
    folder = tmp_path / "new"
    assert main(["init", str(folder)]) == 0
    assert "python -m flows.retrain" in capsys.readouterr().out
    stages = [stage.get("do", stage) for stage in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].values()]
    for stage in stages:
        assert (folder / (stage["cmd"].split()[2].replace(".", "/") + ".py")).is_file()
        assert all((folder / dep).is_file() for dep in stage["deps"] if dep.startswith("flows/"))
        assert not [dep for dep in stage["deps"] if dep.startswith("src/")]
    source = yaml.safe_load((folder / "params.yaml").read_text())["prepare"]["source"]
    assert (folder / source / "corpus.jsonl").is_file() and (folder / "profiles" / "small.yaml").is_file()
    assert "no_scm = true" in (folder / ".dvc/config").read_text()
    assert not list(folder.rglob("__pycache__")) and not list(folder.glob(".init-*"))


def test_files_that_are_there_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents the loss of settings by a second `init`."""
    (tmp_path / "params.yaml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 1
    assert "has params.yaml already; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "params.yaml").read_text() == "mine" and not (tmp_path / "flows").exists()


def test_a_project_within_git_keeps_git(tmp_path: Path) -> None:
    """Prevents DVC from ignoring the repository that a project is part of."""
    (tmp_path / ".git").mkdir()
    assert main(["init", str(tmp_path / "new")]) == 0
    assert "no_scm" not in (tmp_path / "new/.dvc/config").read_text()


def test_the_wheel_carries_all_that_init_copies() -> None:
    """Prevents a wheel that can start no project because one list was extended and the other not."""
    lines = (ROOT / "setup.py").read_text()
    patterns = [line.strip().strip('",') for line in lines.partition("PATTERNS = (")[2].partition(")")[0].splitlines()]
    carried = {path.relative_to(ROOT) for pattern in filter(None, patterns) for path in ROOT.glob(pattern)}
    for name in project.TEMPLATE:
        assert any(path == Path(name) or Path(name) in path.parents for path in carried), name
