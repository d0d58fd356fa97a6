"""`rabtriever search` and `explain`: which retriever answers, and in which form."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rabtriever.cli import main
from rabtriever.data.beir_io import Document, read_run, write_queries
from rabtriever.ops import packaging, registry
from rabtriever.search.explanation import Explanation
from tests.cli.registered import promoted
from tests.toy import ToyRetriever, dataset, write_retriever


def test_search_by_folder_and_by_champion(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a command that answers from another retriever than the one asked for."""
    promoted(1.0)
    write_retriever("other", dataset(), 0.0)
    names = {"champion": "d06", "1": "d06", "models:/rabtriever@champion": "d06", "other": "d00"}
    for name, first in names.items():
        assert main(["search", "need 1", "-k", "2", "--model", name]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
        assert len(lines) == 2 and first in lines[0] and "Thing" in lines[0]


def test_the_installed_code_answers_and_says_so(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a search that runs whatever code a registered folder carries, and one that hides the difference."""
    version = promoted(1.0)
    carried = registry.local_folder(version).parent.parent / "code" / "rabtriever" / "search" / "retriever.py"
    carried.write_text("raise RuntimeError('of another age')\n")
    assert main(["search", "need 1"]) == 0
    shown = capsys.readouterr()
    assert "d06" in shown.out and "registered by other code" not in shown.err
    monkeypatch.setattr(packaging, "code_here", lambda: "0" * 64)
    assert main(["search", "need 1"]) == 0
    shown = capsys.readouterr()
    assert "d06" in shown.out
    assert [line for line in shown.err.splitlines() if "version 1 was registered by other code" in line]


def test_a_damaged_version_does_not_answer(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents answers from files that are not those which were registered."""
    (registry.local_folder(promoted(1.0)) / "best.json").write_text("{}")
    assert main(["search", "need 1"]) == 1
    assert "best.json" in capsys.readouterr().err


def test_searching_imports_no_mlflow(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents seconds of imports for reading one alias from a local file."""
    promoted(1.0)
    monkeypatch.setitem(sys.modules, "mlflow", None)  # importing it fails
    assert main(["search", "need 1"]) == 0


def test_a_file_of_queries_as_json_lines(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents answers that cannot be told apart, or read by a program."""
    write_retriever("one", dataset(), 1.0)
    write_queries(Path("queries.jsonl"), {"a": "need 1", "b": "need 2"})
    assert main(["search", "-f", "queries.jsonl", "-k", "2", "--json", "--model", "one"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["query_id"] for row in rows] == ["a", "b"]
    assert [row["hits"][0]["doc_id"] for row in rows] == ["d06", "d07"] and len(rows[0]["hits"]) == 2
    assert set(rows[0]["hits"][0]) == {"doc_id", "score", "title", "text"}
    assert main(["search", "-f", "queries.jsonl", "--model", "one"]) == 0
    assert "b: need 2" in capsys.readouterr().out.splitlines()
    assert main(["search", "need 1", "--json", "--model", "one"]) == 0
    assert "query_id" not in json.loads(capsys.readouterr().out)


def test_a_file_of_queries_as_a_run(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a run file that names queries otherwise than the judgements do."""
    write_retriever("one", dataset(), 1.0)
    write_queries(Path("queries.jsonl"), {"a": "need 1", "b": "need 2"})
    assert main(["search", "-f", "queries.jsonl", "-k", "3", "--trec", "run.trec", "--model", "one"]) == 0
    assert capsys.readouterr().out == ""
    run = read_run("run.trec")
    assert list(run) == ["a", "b"] and list(run["b"])[0] == "d07" and len(run["a"]) == 3
    Path("queries.jsonl").write_text("")
    assert main(["search", "-f", "queries.jsonl", "--model", "one"]) == 1
    assert "has no query" in capsys.readouterr().err


def test_documents_cannot_steer_the_terminal(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O46. Prevents a document from colouring, clearing or renaming the terminal, and from breaking the list."""
    data, name = dataset(), "d06\x1b[1m"
    data.corpus.pop("d06")
    data.corpus[name] = Document(name, "Um\nbrella\r\x1b[31m", "Keeps \x1b[2J\x1b]0;owned\x07 rain \x9b1m off")
    write_retriever("one", data, 0.0)
    write_queries(Path("queries.jsonl"), {"a\x1b[5m": "need\n1"})
    assert main(["search", "-f", "queries.jsonl", "-k", "12", "--model", "one"]) == 0
    out = capsys.readouterr().out
    assert not set(out) & {"\x1b", "\x07", "\r", "\x9b"}
    lines = out.splitlines()
    assert lines[0] == "a�[5m: need 1" and len(lines) == 1 + 2 * 12
    assert " d06�[1m  Um brella �[31m" in out and "    Keeps �[2J�]0;owned� rain �1m off" in lines
    assert main(["search", "-f", "queries.jsonl", "-k", "12", "--json", "--model", "one"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.isprintable() and json.loads(line)["query"] == "need\n1"
    assert name in [hit["doc_id"] for hit in json.loads(line)["hits"]]


def test_explain_prints_parts_and_their_sum(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents an explanation that leaves a part out of what it prints."""
    write_retriever("one", dataset(), 1.0)
    found = Explanation("need 1", "d06", 1.0, 2.0, 4.0, -8.0, 0.5)
    monkeypatch.setattr(ToyRetriever, "explain", lambda self, query, doc_id: found, raising=False)
    assert main(["explain", "need 1", "d06", "--model", "one"]) == 0
    lines = capsys.readouterr().out.splitlines()
    values = [float(line.split()[0]) for line in lines]
    assert lines[-1].endswith("total") and sum(values[:-1]) == values[-1] == -0.5
    assert main(["explain", "need 1", "d06", "--model", "one", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {**found.parts, "total": -0.5}
