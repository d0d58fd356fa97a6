"""The public interface: what the package exports, and what it costs to import."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rabtriever
from rabtriever.ops.lookup import Found
from rabtriever.search.retriever import Retriever as FolderRetriever
from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in a process of its own."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_importing_is_light() -> None:
    """Prevents `import rabtriever` from taking the seconds that torch takes."""
    done = run("import sys, rabtriever; print(*sys.modules)")
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names
    third = {name for name in loaded if not name.startswith(("_", "sitecustomize"))}
    assert done.returncode == 0 and "rabtriever.api" not in done.stdout
    assert not third & {"torch", "numpy", "transformers", "yaml", "faiss", "numba"}, third


def test_searching_imports_no_training_or_registry_library() -> None:
    """Prevents a base install that cannot search, for want of a library that searching does not use."""
    done = run(
        "import sys\nfrom rabtriever import Retriever\nimport rabtriever.cli.search, rabtriever.cli.opening\n"
        "unwanted = {'lightning', 'prefect', 'dvc', 'mlflow', 'great_expectations', 'pandas', 'matplotlib', 'peft',"
        " 'bm25s', 'ir_measures', 'psutil'} & set(sys.modules)\n"
        "sys.exit(f'imported {unwanted}' if unwanted else 0)"
    )
    assert done.returncode == 0, done.stderr


def test_the_exports_are_there() -> None:
    """Prevents a name in `__all__` that cannot be imported, and a version that differs from the package's."""
    assert set(rabtriever.__all__) <= set(dir(rabtriever))
    for name in rabtriever.__all__:
        assert getattr(rabtriever, name)
    assert rabtriever.__version__ == importlib.metadata.version("rabtriever")
    assert (Path(rabtriever.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'Retreiver'"):
        rabtriever.Retreiver  # noqa: B018


def test_a_copy_of_the_code_has_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an error where the code runs from a registered version, which is not installed."""

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert rabtriever._version() == "0.2.0"


def test_loading_a_folder_and_a_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Prevents a public retriever that answers otherwise than the folder it was loaded from."""
    loaded, plain = rabtriever.Retriever.load(folder), FolderRetriever.load(folder)
    assert loaded.search("tea", k=3) == plain.search("tea", k=3) and loaded.version is None
    assert isinstance(loaded, rabtriever.Retriever) and isinstance(loaded.search("tea")[0], rabtriever.Hit)
    monkeypatch.setattr("rabtriever.api.find_retriever", lambda name: Found(folder, {"champion": "3"}[name]))
    assert "version 3" in repr(rabtriever.Retriever.load())
    assert isinstance(loaded.reindexed({"one": loaded.documents[0]}), rabtriever.Retriever)


def test_evaluate_is_the_pipelines_own_measure(folder: Path, toy: Any, tmp_path: Path) -> None:  # noqa: F811
    """Prevents a public measure that gives another number than the evaluation table."""
    from rabtriever.data.beir_io import Dataset
    from rabtriever.data.metrics import score_queries, summarise
    from rabtriever.data.preparation import write_dataset

    loaded = rabtriever.Retriever.load(folder)
    write_dataset(Dataset(toy.corpus, toy.queries, {"test": toy.qrels}), tmp_path / "data")
    found = rabtriever.evaluate(loaded, tmp_path / "data")
    wanted = summarise(score_queries(toy.qrels, loaded.rank(toy.queries, 100)))
    assert found == {**wanted, "queries": len(toy.qrels), "documents": len(toy.corpus)}
