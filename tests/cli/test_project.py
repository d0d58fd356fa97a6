"""`rabtriever init`: what a new project is given."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml

from rabtriever.cli import main, project
from rabtriever.core import code
from tests.toy import ROOT


def test_a_new_project_has_what_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a project whose first `dvc repro` ends at a file that only the repository has."""
    folder = tmp_path / "new"
    assert main(["init", str(folder)]) == 0
    assert "python -m flows.retrain" in capsys.readouterr().out
    stages = [stage.get("do", stage) for stage in yaml.safe_load((folder / "dvc.yaml").read_text())["stages"].values()]
    for stage in stages:
        module = stage["cmd"].split()[2]
        assert importlib.util.find_spec(module) if "rabtriever" in module else (folder / as_file(module)).is_file()
        assert not [dep for dep in stage.get("deps", []) if dep.startswith("src/")]
    source = yaml.safe_load((folder / "params.yaml").read_text())["prepare"]["source"]
    assert (folder / source / "corpus.jsonl").is_file() and (folder / "profiles" / "small.yaml").is_file()
    assert "no_scm = true" in (folder / ".dvc/config").read_text()
    assert "/dvc.lock" in (folder / ".gitignore").read_text().splitlines(), "S10"
    assert not list(folder.rglob("__pycache__")) and not list(folder.glob(".init-*"))


def test_files_that_are_there_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents the loss of settings by a second `init`."""
    (tmp_path / "params.yaml").write_text("mine")
    assert main(["init", str(tmp_path)]) == 1
    assert "has params.yaml already; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "params.yaml").read_text() == "mine" and not (tmp_path / "flows").exists()


def test_a_new_project_knows_the_installed_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S09: prevents results of the old code after an upgrade of the package, which has no `src` in the project."""
    assert main(["init", str(tmp_path / "new")]) == 0
    monkeypatch.chdir(tmp_path / "new")
    code.write_identities()
    stages = yaml.safe_load(Path("dvc.yaml").read_text())["stages"].values()
    deps = {dep for stage in stages for dep in stage.get("do", stage).get("deps", []) if dep.startswith(".cache/")}
    assert deps and all(Path(dep).is_file() for dep in deps)


def as_file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def test_the_wheel_carries_all_that_init_copies() -> None:
    """Prevents a wheel that can start no project because one list was extended and the other not."""
    lines = (ROOT / "setup.py").read_text()
    patterns = [line.strip().strip('",') for line in lines.partition("PATTERNS = (")[2].partition(")")[0].splitlines()]
    carried = {path.relative_to(ROOT) for pattern in filter(None, patterns) for path in ROOT.glob(pattern)}
    for name in project.TEMPLATE:
        assert any(path == Path(name) or Path(name) in path.parents for path in carried), name
