"""The benchmark of abstention: figures that can be checked by hand, on the right queries."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.abstention import at_threshold, compared, measure, out_of_scope, separation
from rabtriever.data import beir_io
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import JudgedHits
from tests.closure import ROOT
from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401


def drawn(queries: int = 200) -> JudgedHits:
    """Ten hits of each query, right with the probability that their score says."""
    rng = np.random.default_rng(2)
    scores = rng.normal(0.0, 2.0, queries * 10)
    right = rng.random(len(scores)) < 1 / (1 + np.exp(-scores))
    return JudgedHits(scores, right, np.repeat(np.arange(queries), 10))


def test_the_cut_is_that_of_dev():
    """A cut chosen on the queries that it is measured on looks better than it is."""
    dev = np.arange(100.0)  # 95 of 100 are at 5 or above
    found = separation(dev, np.array([4.0, 5.0, 6.0, 7.0]), np.array([4.5, 5.5]))
    assert (found["kept"], found["refused"]) == (75.0, 50.0)
    assert found["auroc"] == pytest.approx(100 * (0 + 1 + 2 + 2) / 8, abs=0.1), "pairs in the right order"


def test_calibrations_are_compared_on_held_out_hits():
    """A calibration that is measured on what it was fitted to: isotonic regression would always win."""
    hits = drawn()
    found = compared(hits)
    truth = 1 / (1 + np.exp(-hits.scores))
    best = float(np.mean((truth - hits.right) ** 2))
    assert found["Platt"]["brier"] == pytest.approx(best, abs=0.004)
    assert found["isotonic"]["brier"] >= found["Platt"]["brier"] - 0.001
    assert found["isotonic"]["log_loss"] > found["Platt"]["log_loss"]


def test_answers_above_the_threshold():
    """The shares of the two kinds of queries exchanged, or a threshold on the raw score."""
    found = at_threshold(drawn(), np.array([9.0, 9.0, 9.0, -9.0]), np.array([9.0, -9.0]))
    assert (found["answerable_answered"], found["out_of_scope_answered"]) == (75.0, 50.0)
    assert 0.5 < found["relevance_score"] < 0.9
    never = JudgedHits(*(part[:50] for part in drawn()))._replace(right=np.zeros(50, dtype=bool))
    assert at_threshold(never, np.zeros(1), np.zeros(1)) is None


@pytest.fixture
def data(tmp_path: Path, toy: Any) -> Path:
    """The toy set with dev and test queries and two queries without an answer."""
    beir_io.write_corpus(tmp_path / "data/corpus.jsonl", toy.corpus)
    beir_io.write_queries(tmp_path / "data/queries.jsonl", toy.queries)
    for split, end in (("train", "0"), ("dev", "1"), ("test", "0")):
        qrels = {query_id: grades for query_id, grades in toy.qrels.items() if query_id.endswith(end)}
        beir_io.write_qrels(tmp_path / f"data/qrels/{split}.tsv", qrels)
    rows = [{"_id": f"o{number}", "text": f"tell me joke {number}", "split": "test"} for number in range(2)]
    rows.append({"_id": "o9", "text": "of dev", "split": "dev"})
    (tmp_path / "data/out_of_scope.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def test_out_of_scope_queries_of_the_split(data: Path):
    """Queries of dev among those of test, or an average over none."""
    assert out_of_scope(data, "test") == ["tell me joke 0", "tell me joke 1"]
    with pytest.raises(ValueError, match="no query of the split 'train'"):
        out_of_scope(data, "train")


def test_a_retriever_is_measured_on_its_own_documents(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """Figures of another corpus under the name of this one; a table that the page cannot draw."""
    calibrators = {"Platt": {"brier": 0.1, "log_loss": 0.3}}
    monkeypatch.setattr("benchmarks.abstention.compared", lambda hits: calibrators)
    report = measure(Retriever.load(folder), data)
    assert report["answerable"] == {"dev": 6, "test": 6} and report["out_of_scope"] == 2
    assert set(report["systems"]) == {"student", "BM25"}
    drawn = runpy.run_path(str(ROOT / "docs/update_tables.py"))["abstention_table"](json.loads(json.dumps(report)))
    assert "`data`: 6 test queries with an answer and 2 without, in per cent." in drawn
    assert "| Platt | 0.1000 | 0.3000 |" in drawn
    (data / "corpus.jsonl").write_text('{"_id": "other", "text": "another"}\n')
    with pytest.raises(ValueError, match="the retriever has other documents than"):
        measure(Retriever.load(folder), data)
