"""What a version carries, and by what its code is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, write_manifest
from rabtriever.core.code import meaning
from rabtriever.ops import packaging, registry, tracking
from tests.closure import ROOT
from tests.ops.test_tracking import EVALUATION, register
from tests.toy import dataset, per_query, write_retriever


def replaced(old: str, new: str) -> Callable[[str], str]:
    """An edit that must find what it replaces."""

    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


COMMENT = replaced("import functools\n", "import functools  # as ever\n\n# and more\n")
DOCSTRING = replaced('"""The documents, in row order."""', '"""The documents, one below the other."""')
ATTRIBUTE = replaced("SCORE_CELLS = 20_000_000", 'SCORE_CELLS = 20000000\n"""Held at once."""\n')
VALUE = replaced("SCORE_CELLS = 20_000_000", "SCORE_CELLS = 20_000_001")
TEXT = replaced("ask for at least one document", "ask for one document at least")
DEFAULT = replaced("k: int = 10) -> list[Hit] | list", "k: int = 11) -> list[Hit] | list")


@pytest.mark.parametrize(
    ("edit", "alike"),
    [(COMMENT, True), (DOCSTRING, True), (ATTRIBUTE, True), (VALUE, False), (TEXT, False), (DEFAULT, False)],
)
def test_code_is_told_by_its_meaning(tmp_path: Path, edit: Callable[[str], str], alike: bool) -> None:
    """Prevents a comment that makes a version, and a change that makes none (S09)."""
    package = tmp_path / "rabtriever"
    shutil.copytree(ROOT / "src/rabtriever", package, ignore=shutil.ignore_patterns("__pycache__"))
    assert packaging._identity(package) == packaging.code_here()
    file = package / "search/retriever.py"
    file.write_text(edit(file.read_text()))
    assert (packaging._identity(package) == packaging.code_here()) is alike


def test_a_file_more_is_other_code(tmp_path: Path) -> None:
    """Prevents code that is found by its name, such as a plugin, from passing for nothing (S09)."""
    package = tmp_path / "rabtriever"
    shutil.copytree(ROOT / "src/rabtriever", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "models/another.py").write_text('"""Nothing but words."""\n')
    assert packaging._identity(package) != packaging.code_here()


def test_none_is_not_nothing(tmp_path: Path) -> None:
    """Prevents taking values that are false for one another (S09)."""
    files = []
    for number, text in enumerate(
        ["def f():\n    return 0\n", "def f():\n    return None\n", "def f():\n    return ''\n"]
    ):
        files.append(tmp_path / f"{number}.py")
        files[-1].write_text(text)
    assert len({meaning(file) for file in files}) == 3


def test_a_comment_makes_no_version(store: Path) -> None:
    """Prevents a second version of one retriever after a comment, in the package or in the script (S09)."""
    model = registry.local_folder(register(0.5)).parent.parent
    for file in (model / "pyfunc.py", model / "code/rabtriever/search/scan.py"):
        file.write_text("# a comment\n" + file.read_text())
    assert register(0.5).version == "1"


@pytest.mark.parametrize("name", ["pyfunc.py", "code/rabtriever/search/scan.py", "code/rabtriever/ops/pyfunc.py"])
@pytest.mark.parametrize("text", ["more = 1\n", "this is (not Python\n"])
def test_other_code_makes_a_version(store: Path, name: str, text: str) -> None:
    """Prevents MLflow's server from running code for good that is not the one measured (S01, S09)."""
    model = registry.local_folder(register(0.5)).parent.parent
    (model / name).write_text((model / name).read_text() + text)
    assert register(0.5).version == "2"


def test_code_that_is_not_python_is_told(tmp_path: Path) -> None:
    """Prevents a traceback of the parser for a version that somebody has damaged (S01)."""
    (tmp_path / "deep.py").write_text("(" * 10_000)
    with pytest.raises(ArtifactMismatchError, match=r"deep\.py is not Python"):
        meaning(tmp_path / "deep.py")


def test_nothing_in_a_version_is_pickled(store: Path) -> None:
    """Prevents files that run code when they are read, or that only this Python can read."""
    folder = registry.local_folder(register(0.5)).parent.parent
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    page = {".html", ".css", ".js"}
    assert kinds <= {".py", ".json", ".jsonl", ".yaml", ".yml", ".txt", "", ".typed", *page}, kinds
    assert not list(folder.rglob("__pycache__"))


def test_what_editors_leave_behind_is_not_carried(store: Path) -> None:
    """Prevents a version that nobody trusts because of a hidden file in models/retriever (S01)."""
    data = dataset()
    write_retriever("models/retriever", data, 0.5)
    Path("models/retriever/.cache").mkdir()
    Path("models/retriever/.cache/old.json").write_text("{}")
    Path("models/retriever/.swp").write_text("")
    with tracking.stage_run("register", {}) as run:
        version = registry.register(run, "models/retriever", data.hash, EVALUATION, per_query(data, 0.5))
    assert sorted(path.name for path in registry.local_folder(version).iterdir()) == [
        "best.json",
        "corpus.jsonl",
        "manifest.json",
    ]


def test_what_no_version_may_carry_is_not_registered(store: Path) -> None:
    """Prevents a version that is uploaded, and then refused by everybody who opens it (S01)."""
    folder, data = Path("models/retriever"), dataset()
    write_retriever(folder, data, 0.5)
    (folder / "weights.bin").write_text("x")
    write_manifest(folder, "retriever", {}, {})
    with (
        tracking.stage_run("register", {}) as run,
        pytest.raises(ArtifactMismatchError, match=r"cannot be registered: weights\.bin is not a file"),
    ):
        registry.register(run, folder, data.hash, EVALUATION, per_query(data, 0.5))
    assert registry.get("1") is None
