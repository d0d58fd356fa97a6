"""`rabtriever inspect`, `data check` and `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rabtriever.cli import main
from rabtriever.core.artifacts import read_manifest
from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.preparation import write_dataset
from tests.toy import ROOT, ToyRetriever, dataset, write_retriever


def test_inspect_shows_identity_and_finds_damage(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents trusting a folder whose files are not those it was written with."""
    write_retriever("retriever", dataset(), 0.5)
    assert main(["inspect", "retriever"]) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest("retriever", "retriever")
    assert manifest.hash in printed and f"data: {dataset().hash}" in printed and "best.json" in printed
    Path("retriever/best.json").write_text("{}")
    assert main(["inspect", "retriever"]) == 1
    assert "best.json" in capsys.readouterr().err


def test_data_check_tells_sizes_and_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a fault of the data from being found only after the pipeline has started."""
    assert main(["data", "check", str(ROOT / "data/household")]) == 0
    assert "490 documents" in capsys.readouterr().out
    write_dataset(dataset(), tmp_path / "broken")  # nothing is judged for training
    assert main(["data", "check", str(tmp_path / "broken")]) == 1
    assert "qrels/train.tsv" in capsys.readouterr().err


def test_data_check_tells_what_is_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P06, P07: a set with queries as documents, or with repeated texts, passes the check without a word."""
    corpus = {name: Document(name, "", text) for name, text in {"a": "a need", "b": "a thing", "c": "A thing."}.items()}
    queries = {"a": "a need", "d": "another need", "e": "some need"}
    qrels = {"train": {"a": {"b": 1}}, "dev": {"d": {"b": 1}}, "test": {"e": {"c": 1}}}
    write_dataset(Dataset(corpus, queries, qrels), tmp_path / "data")
    assert main(["data", "check", str(tmp_path / "data")]) == 0
    told = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" repeat")[0].split(",")[0] for line in told] == [
        "1 queries have the id of a document",
        "1 documents",
    ]


def test_evaluate_prints_metrics(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents metrics of another split, or in another unit than the tables have."""
    monkeypatch.setattr(ToyRetriever, "documents", property(lambda self: tuple(self.corpus.values())), raising=False)
    write_retriever("half", dataset(), 0.5)
    write_dataset(dataset(), "data")
    assert main(["evaluate", "data", "--model", "half", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["S@1"] == 50.0 and metrics["queries"] == 40 and metrics["documents"] == 12
    assert main(["evaluate", "data", "--model", "half"]) == 0
    assert "S@1           50.00 %" in capsys.readouterr().out.splitlines()
    assert main(["evaluate", "data", "--model", "half", "--split", "train"]) == 1
