"""Sets of ir_datasets become folders, once; the sets are registered here and need no network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("ir_datasets")

import ir_datasets
from ir_datasets.datasets.base import Dataset
from ir_datasets.formats import BaseDocs, BaseQrels, BaseQueries, GenericDoc, GenericQrel, GenericQuery
from ir_datasets.util.download import LocalDownload, RequestsDownload

from flows.common import guard
from rabtriever import cli
from rabtriever.core.settings import load_params
from rabtriever.data.beir_io import Document, load_dataset
from rabtriever.data.preparation import PrepareParams
from rabtriever.ops import inbox, irds
from rabtriever.ops.environment import check_source
from tests.toy import dataset


class TitledDoc(NamedTuple):
    doc_id: str
    text: str
    title: str

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class Docs(BaseDocs):
    def __init__(self, rows: list[Any]) -> None:
        self.rows, self.read = rows, 0

    def docs_iter(self) -> Iterator[Any]:
        self.read += 1
        return iter(self.rows)


class Queries(BaseQueries):
    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts

    def queries_iter(self) -> Iterator[GenericQuery]:
        return (GenericQuery(*one) for one in self.texts.items())


class Qrels(BaseQrels):
    def __init__(self, grades: dict[str, dict[str, int]]) -> None:
        self.grades = grades

    def qrels_iter(self) -> Iterator[GenericQrel]:
        return (GenericQrel(q, d, grade) for q, row in self.grades.items() for d, grade in row.items())


DOCS = [
    TitledDoc("d1", "Soaks up liquid.", "Sponge"),
    TitledDoc("d2", "Boils water.", ""),
    TitledDoc("d3", " ", ""),
    GenericDoc("d4", "A broom sweeps."),
]
QUERIES = {"q1": "I spilled my coke", "q2": "tea, please", "q3": "dust", "q4": "crumbs", "q5": "soup"}
TRAIN = {"q1": {"d1": 2, "d2": -1}, "q2": {"d2": 1, "gone": 1}, "q3": {"d3": 1}, "unknown": {"d1": 1}}


@pytest.fixture
def docs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Docs:
    """The documents of the sets toy/train, toy/valid and toy/test; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    registry = ir_datasets.registry
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    docs, queries = Docs(DOCS), Queries(QUERIES)
    registry.register("toy", Dataset(docs, queries))
    for name, grades in {"train": TRAIN, "valid": {"q4": {"d4": 1}}, "test": {"q5": {"d1": 1, "d4": 0}}}.items():
        registry.register(f"toy/{name}", Dataset(docs, queries, Qrels(grades)))
    registry.register("other/test", Dataset(Docs(DOCS), queries, Qrels({"q5": {"d1": 1}})))
    return docs


def test_a_set_becomes_a_folder(docs: Docs, capsys: pytest.CaptureFixture[str]):
    """Documents lose their titles, or a fault of the set stops the data contract."""
    assert irds.local_folder("irds:toy") == "data/sets/irds-toy"
    found = load_dataset("data/sets/irds-toy")
    assert found.corpus == {
        "d1": Document("d1", "Sponge", "Soaks up liquid."),
        "d2": Document("d2", "", "Boils water."),
        "d4": Document("d4", "", "A broom sweeps."),
    }
    assert found.queries == {name: QUERIES[name] for name in ("q1", "q2", "q4", "q5")}
    assert found.qrels == {
        "train": {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}},
        "dev": {"q4": {"d4": 1}},
        "test": {"q5": {"d1": 1, "d4": 0}},
    }
    assert capsys.readouterr().out.strip() == (
        "irds:toy is in data/sets/irds-toy now; left out: 1 blank documents, "
        "3 judgements of unknown queries or documents, 2 train queries without a relevant document"
    )


def test_a_set_is_written_once(docs: Docs):
    """Each run fetches the set again."""
    for _ in range(2):
        irds.local_folder("irds:toy")
    assert docs.read == 1
    assert irds.local_folder("data/household") == "data/household", "a folder stays one"


def test_parts_can_be_named(docs: Docs):
    """A collection whose parts have other names cannot be used."""
    folder = irds.local_folder("irds:train=toy/train,test=toy/valid")
    assert folder == "data/sets/irds-train-toy-train-test-toy-valid"
    found = load_dataset(folder)
    assert set(found.qrels) == {"train", "test"} and found.qrels["test"] == {"q4": {"d4": 1}}


def test_no_folder_is_left_where_writing_fails(docs: Docs, monkeypatch: pytest.MonkeyPatch):
    """Half of a set is taken for the whole at the next run."""
    monkeypatch.setattr(docs, "rows", [*DOCS, None])
    with pytest.raises(AttributeError):
        irds.local_folder("irds:toy")
    assert not Path("data/sets/irds-toy").exists()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("irds:toyy", r"no set 'toyy'.*did you mean irds:toy\?"),
        ("irds:qqqqqqqqqqqqq", "`ir_datasets list` prints all"),
        ("irds:toy/test", "write irds:toy$"),
        ("irds:other", "no set 'other'.*did you mean irds:other/test"),
        ("irds:vaswani", r"no train part of its own \(judged parts: none\)"),
        ("irds:msmarco-passage", r"no test part.*msmarco-passage/dev/small"),
        ("irds:train=toy/train", "expected train and test"),
        ("irds:train=toy/train,tset=toy/test,test=toy/test", "names train, tset, test"),
        ("irds:train=toy,test=toy/test", "train has no documents, queries or judgements"),
        ("irds:train=toy/train,test=other/test", "test has other documents than train"),
    ],
)
def test_wrong_addresses(docs: Docs, address: str, message: str):
    """A name that is nearly right ends in a KeyError."""
    with pytest.raises(ValueError, match=message):
        irds.local_folder(address)
    assert not Path("data").exists()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            RequestsDownload("http://127.0.0.1:9/docs", tries=1),
            ConnectionError,
            "could not be downloaded .*Refused|refused",
        ),
        (LocalDownload("manual.zip"), FileNotFoundError, "manual.zip is not there, and ir_datasets cannot fetch it"),
    ],
    ids=["no network", "by hand"],
)
def test_files_that_do_not_arrive(
    docs: Docs, source: Any, error: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
):
    """A machine without a network shows a traceback of urllib3."""

    def arriving() -> Iterator[Any]:
        with source.stream() as stream:
            return iter(stream.read())

    monkeypatch.setattr(docs, "docs_iter", arriving)
    with pytest.raises(error, match=message):
        irds.local_folder("irds:toy")


def test_the_package_is_missing(docs: Docs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A retraining ends in a traceback for want of a package."""
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(SystemExit), guard("retrain"):
        irds.local_folder("irds:toy")
    assert "retrain: irds: needs the Python package ir_datasets" in capsys.readouterr().err


def test_a_retraining_and_the_command_take_it(project: Path, docs: Docs, capsys: pytest.CaptureFixture[str]):
    """The address is taken for a folder, or params.yaml names what DVC cannot read."""
    data, registry = dataset(), ir_datasets.registry
    shared = Docs([TitledDoc(one.doc_id, one.text, one.title) for one in data.corpus.values()])
    ids = sorted(data.qrels["test"])
    for split, part in {"train": ids[:20], "test": ids[20:]}.items():
        grades = {query_id: data.qrels["test"][query_id] for query_id in part}
        registry.register(f"things/{split}", Dataset(shared, Queries(data.queries), Qrels(grades)))
    assert cli.main(["data", "check", "irds:things"]) == 0
    assert "meets the contract" in capsys.readouterr().out
    inbox.adopt("irds:things")
    assert load_params(PrepareParams, "prepare", "params.yaml").source == "data/sets/irds-things"


def test_params_yaml_names_the_folder():
    """Whoever writes the address into params.yaml reads that there is no such folder, and nothing more."""
    with pytest.raises(FileNotFoundError, match="name it once as DATA=irds:toy"):
        check_source("irds:toy", [])


def test_its_folder_is_ignored():
    """A run dirties the checkout with a gigabyte of passages."""
    from tests.closure import ROOT

    assert f"/{irds.HOME}" in (ROOT / ".gitignore").read_text().split()
