"""The embedded data: that it can be made again, and that it stays as hard as its README says."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import bm25s
import ir_measures
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "data" / "household"
FILES = ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv", "qrels/test.tsv")
SPLITS = ("train", "dev", "test")


def read_lines(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def corpus() -> dict[str, str]:
    return {row["_id"]: f"{row['title']}. {row['text']}" for row in read_lines("corpus.jsonl")}


@pytest.fixture(scope="module")
def queries() -> dict[str, str]:
    return {row["_id"]: row["text"] for row in read_lines("queries.jsonl")}


@pytest.fixture(scope="module")
def qrels() -> dict[str, dict[str, dict[str, int]]]:
    splits: dict[str, dict[str, dict[str, int]]] = {}
    for split in SPLITS:
        header, *lines = (FOLDER / "qrels" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "query-id\tcorpus-id\tscore"
        splits[split] = defaultdict(dict)
        for line in lines:
            query_id, doc_id, score = line.split("\t")
            splits[split][query_id][doc_id] = int(score)
    return splits


def test_generator_reproduces_the_committed_files(tmp_path: Path) -> None:
    """Prevents data that nobody can make again: edited by hand, or generated from tables that were changed later."""
    subprocess.run([sys.executable, str(FOLDER / "generate.py"), "--out", str(tmp_path)], check=True)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_generator_does_not_depend_on_hash_order(tmp_path: Path) -> None:
    """Prevents a set whose bytes change with PYTHONHASHSEED, which one equal run would not show."""
    command = [sys.executable, str(FOLDER / "generate.py"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHONHASHSEED": "7"})
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_counts_and_size(corpus, queries, qrels) -> None:
    """Prevents a set below the promised size, or one too large to commit."""
    assert len(corpus) >= 420
    assert [len(qrels[split]) for split in SPLITS] == [4500, 250, 300]
    assert len(queries) == 5050
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*") if "__pycache__" not in path.parts) <= 2_000_000


def test_splits_share_neither_ids_nor_texts(queries, qrels) -> None:
    """Prevents test queries that training has seen under another id."""
    assert len(set(queries.values())) == len(queries)
    ids = [query_id for split in SPLITS for query_id in qrels[split]]
    assert len(ids) == len(set(ids)) == len(queries)
    assert set(ids) == set(queries)


def test_texts_are_short(corpus, queries) -> None:
    """Prevents texts that grow until most of the time for training goes into tokens that decide nothing."""
    lengths = [len(text.split()) for text in queries.values()]
    assert sum(lengths) / len(lengths) <= 23
    assert max(lengths) <= 32
    assert sum(len(text.split()) for text in corpus.values()) / len(corpus) <= 25


def test_needs_alone_do_not_rank_the_documents() -> None:
    """Prevents conditions that hardly matter: need and usual grade known, circumstances ignored, is not enough."""
    sys.path.insert(0, str(FOLDER))
    try:
        generate = importlib.import_module("generate")
        documents, splits, _ = generate.build()
    finally:
        sys.path.remove(str(FOLDER))
    total: dict[str, int] = defaultdict(int)
    for query in splits["train"]:
        for doc_id, value in query.grades.items():
            total[doc_id] += value
    run = {
        query.query_id: {d.doc_id: float(total[d.doc_id]) for d in documents if d.means.need == query.need}
        for query in splits["test"]
    }
    measure = ir_measures.nDCG @ 10
    judged = {query.query_id: query.grades for query in splits["test"]}
    assert ir_measures.calc_aggregate([measure], judged, run)[measure] < 0.7


def test_documents_are_distinct(corpus) -> None:
    """Prevents two documents that no system could tell apart."""
    assert len(set(corpus.values())) == len(corpus)


def test_judgements_are_graded_and_every_query_has_a_positive(corpus, qrels) -> None:
    """Prevents unknown documents, zero grades written out, and training queries without a positive."""
    for split in SPLITS:
        for query_id, judged in qrels[split].items():
            assert judged.keys() <= corpus.keys(), query_id
            assert set(judged.values()) <= {1, 2}, query_id
            if split != "train":
                assert 2 in judged.values(), query_id


def test_quarter_of_test_depends_on_unjudged_documents(corpus, qrels) -> None:
    """Prevents a test that is answered by remembering which documents were right in training."""
    judged = {doc_id for docs in qrels["train"].values() for doc_id in docs}
    assert 0.2 <= 1 - len(judged) / len(corpus) <= 0.3
    for split in ("dev", "test"):
        best = [{doc_id for doc_id, value in docs.items() if value == 2} for docs in qrels[split].values()]
        assert sum(not docs & judged for docs in best) >= 0.25 * len(best)


def test_words_alone_do_not_find_the_documents(corpus, queries, qrels) -> None:
    """Prevents a set that lexical matching solves: the documents have to follow from the situation."""
    ids = list(corpus)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(corpus.values()), stopwords="en", show_progress=False), show_progress=False)
    asked = list(qrels["test"])
    tokens = bm25s.tokenize([queries[query_id] for query_id in asked], stopwords="en", show_progress=False)
    found, scores = index.retrieve(tokens, k=100, show_progress=False)
    run = {
        q: {ids[i]: float(s) for i, s in zip(f, t, strict=True)} for q, f, t in zip(asked, found, scores, strict=True)
    }
    measure = ir_measures.nDCG @ 10
    assert ir_measures.calc_aggregate([measure], qrels["test"], run)[measure] < 0.25
