"""The metrics of a retriever on a folder, and a plain word where there is nothing to measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rabtriever.data.beir_io import Corpus, DataContractError, Dataset, Document, write_qrels
from rabtriever.data.preparation import write_dataset
from rabtriever.evaluation.folder import evaluate
from tests.toy import ToyRetriever, dataset


class Known(ToyRetriever):
    """Ranks the right document first, where its corpus has it."""

    documents = property(lambda self: tuple(self.corpus.values()))

    def reindexed(self, corpus: Corpus) -> Known:
        """The same over another corpus."""
        return Known(self.manifest, corpus, self.best)


def known(corpus: Corpus) -> Known:
    """A retriever over a corpus."""
    data = dataset()
    return Known(None, corpus, {data.queries[q]: next(iter(grades)) for q, grades in data.qrels["test"].items()})


def test_documents_of_the_folder_are_searched(tmp_path: Path) -> None:
    """Prevents a measure over documents that the judgements do not know."""
    data = dataset()
    write_dataset(data, tmp_path / "data")
    whole = evaluate(known(data.corpus), tmp_path / "data")
    assert whole["S@1"] == 100.0 and (whole["queries"], whole["documents"]) == (40, 12)
    assert evaluate(known(dict(list(data.corpus.items())[:5])), tmp_path / "data") == whole


def test_documents_of_queries_are_ignored_and_counted(tmp_path: Path) -> None:
    """P06: a query that is a document of the corpus finds itself first, and the figures fall without a word."""
    data = dataset()
    corpus = {**data.corpus, "q00": Document("q00", "", "need 0")}
    write_dataset(Dataset(corpus, data.queries, {"test": data.qrels["test"]}), tmp_path / "data")
    retriever = known(corpus)
    retriever.best["need 0"] = "q00"
    found = evaluate(retriever, tmp_path / "data")
    assert found["own_documents_ignored"] == 1 and found["queries"] == 40
    assert found["R@100"] == 100.0 and found["S@1"] == 97.5, "its answer is ranked behind others, as before"
    del retriever.best["need 0"]
    assert found == evaluate(retriever, tmp_path / "data")


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({"q99": {"d05": 1}}, "query 'q99' of qrels/test.tsv is not in queries.jsonl"),
        ({"q00": {"d05": 0}}, "no query of qrels/test.tsv has a relevant document"),
    ],
)
def test_what_cannot_be_measured_is_told(tmp_path: Path, qrels: Any, message: str) -> None:
    """Prevents a mean over nothing, or a KeyError, for what the owner of the data can put right."""
    data = dataset()
    write_dataset(Dataset(data.corpus, data.queries, {"test": {}}), tmp_path / "data")
    write_qrels(tmp_path / "data/qrels/test.tsv", qrels)
    with pytest.raises(DataContractError, match=message):
        evaluate(known(data.corpus), tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="dev.tsv"):
        evaluate(known(data.corpus), tmp_path / "data", split="dev")


def test_a_query_that_looks_alike_is_told_apart(tmp_path: Path) -> None:
    """O45: a query seems to be missing that everybody sees in queries.jsonl."""
    data = dataset()
    write_dataset(Dataset(data.corpus, {"\u00fc": "need"}, {"test": {}}), tmp_path / "data")
    write_qrels(tmp_path / "data/qrels/test.tsv", {"u\u0308": {"d05": 1}})
    with pytest.raises(DataContractError, match=r"there is '\u00fc' with U\+00FC where this one has U\+0075 U\+0308"):
        evaluate(known(data.corpus), tmp_path / "data")


def test_a_missing_library_is_told_before_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents minutes of searching that end without a metric."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"install rabtriever\[train\]"):
        evaluate(known({}), "nowhere")
