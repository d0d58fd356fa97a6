"""`rabtriever add`, `remove` and `changes`, and what `search` and `explain` make of them."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rabtriever.cli import main
from rabtriever.data.documents import Document
from rabtriever.ops import lookup
from rabtriever.ops.lookup import Found
from rabtriever.server.documents import DocumentStore
from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401
from tests.states import groups_of_one_length  # noqa: F401

MUG = {"_id": "mug", "title": "Mug", "text": "holds tea", "metadata": {"room": "kitchen"}}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder where a registry is; nothing reads it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("mlruns").mkdir()
    Path("mlruns/mlflow.db").touch()
    return tmp_path


@pytest.fixture
def project(folder: Path, registry: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A project whose champion is a small retriever; the working folder."""
    find = lookup.find_retriever
    found = lambda name: Found(folder, "3") if name == "champion" else find(name)  # noqa: E731
    monkeypatch.setattr(lookup, "find_retriever", found)
    Path("mug.jsonl").write_text(json.dumps(MUG))
    return registry


@pytest.fixture
def shown(project: Path, capsys: pytest.CaptureFixture[str]):
    """Runs a command in the project; gives what it prints on stdout and stderr."""

    def run(*words: str, status: int = 0) -> tuple[str, str]:
        assert main(words) == status
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def _ids(out: str) -> list[str]:
    return [hit["doc_id"] for hit in json.loads(out)["hits"]]


def test_what_was_added_and_removed_is_searched(shown, folder: Path) -> None:  # noqa: F811
    """Prevents a command that shows another corpus than the server, and one that does not say which."""
    out, err = shown("search", "tea", "-k", "50", "--json")
    assert sorted(_ids(out)) == sorted({*_ids(out), "kettle"}) and "mug" not in _ids(out) and err == ""
    file = Path("mlruns/documents.db").resolve()
    assert shown("add", "mug.jsonl")[0] == f"added or replaced: 1, kept in {file}\n"
    shown("remove", "kettle")
    out, err = shown("search", "tea", "-k", "50", "--json")
    assert {"mug", "torch"} <= set(_ids(out)) and "kettle" not in _ids(out) and len(_ids(out)) == 8
    assert [hit["metadata"] for hit in json.loads(out)["hits"] if hit["doc_id"] == "mug"] == [{"room": "kitchen"}]
    assert err == f"changed documents taken along: 2, kept in {file}\n"
    (hit,) = [hit for hit in json.loads(out)["hits"] if hit["doc_id"] == "mug"]
    total = json.loads(shown("explain", "tea", "mug", "--json")[0])["total"]
    assert total == pytest.approx(hit["score"], abs=1e-3)
    assert "no document is 'kettle'" in shown("explain", "tea", "kettle", status=1)[1]
    assert "mug" not in _ids(shown("search", "tea", "-k", "50", "--json", "--model", str(folder))[0]), (
        "a folder is as it is"
    )
    assert [json.loads(line) for line in shown("changes")[0].splitlines()] == [MUG]
    assert shown("changes")[1] == "removed: kettle\n"


def test_only_known_documents_are_removed(shown) -> None:
    """Prevents a typing error that is taken for a removal, and one of several that goes through alone."""
    told = shown("remove", "kettle", "kettel", status=1)[1]
    assert told == (
        "rabtriever remove: no document is 'kettel', expected one of the 8 in the retriever; did you mean 'kettle'?\n"
    )
    assert DocumentStore().changes() == {}
    shown("add", "mug.jsonl")
    assert shown("remove", "mug", "kettle")[0].startswith("removed: 2, kept in ")
    assert "no document is 'mug'" in shown("remove", "mug", status=1)[1], "it is gone already"


def test_documents_come_through_a_pipe(registry: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an export of another program from having to go through a file."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(json.dumps(MUG).encode())))
    assert main(["add", "-"]) == 0
    assert DocumentStore().changes() == {"mug": Document("mug", "Mug", "holds tea", {"room": "kitchen"})}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "b"}', "wrong.jsonl:2: there is no key 'text'"),
        ("", 'wrong.jsonl has no document; expected JSON lines with "_id" and "text"'),
        (None, "there is no file wrong.jsonl"),
    ],
)
def test_a_wrong_file_adds_nothing(
    registry: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    """Prevents a part of a file from being added."""
    if content is not None:
        Path("wrong.jsonl").write_text(content)
    assert main(["add", "wrong.jsonl"]) == 1
    assert told in capsys.readouterr().err and not Path("mlruns/documents.db").exists()


@pytest.mark.parametrize("words", [["add", "mug.jsonl"], ["remove", "mug"], ["changes"]])
def test_no_changes_are_kept_where_no_project_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Prevents a file of changes that no server reads, in a folder that was mistaken for the project."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mug.jsonl").write_text(json.dumps(MUG))
    assert main(words) == 1
    assert "run `make run` first" in capsys.readouterr().err and not (tmp_path / "mlruns").exists()


def test_changes_are_kept_in_the_file_that_a_server_was_given(registry: Path) -> None:
    """Prevents a server with a file of its own from being out of reach of the commands."""
    Path("mug.jsonl").write_text(json.dumps(MUG))
    assert main(["add", "mug.jsonl", "--documents", "own.db"]) == 0
    assert list(DocumentStore("own.db").changes()) == ["mug"] and DocumentStore().changes() == {}
