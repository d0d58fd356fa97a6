"""The evaluation table: what each row ranks, what it may know, and what the figures are of."""

import dataclasses
import types

import numpy as np
import pytest

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset
from rabtriever.evaluation import systems as evaluation
from rabtriever.evaluation.systems import EvaluateParams, System
from rabtriever.models.reranker import Reranker

PARAMS = EvaluateParams(teacher_all_up_to=8, teacher_pool=2, batch_size=16, timed_queries=1, samples=2)


@pytest.fixture
def dataset(toy) -> Dataset:
    """The toy data; on test other documents are right than on train."""
    test = {"sponge-0": {"kettle": 1}, "torch-1": {"ladder": 2, "bucket": 1}}
    return Dataset(toy.corpus, toy.queries, {"train": dict(toy.qrels), "dev": {}, "test": test})


@pytest.fixture
def queries(dataset) -> dict[str, str]:
    return dataset.split_queries("test")


def test_bm25_names_the_documents_that_it_ranks(dataset):
    """Rows and names of documents, or queries and their lists, come apart."""
    asked = {"first": "reaches shelves", "second": "boils tea"}
    found = evaluation.bm25_system(dataset, asked)
    assert [max(run, key=run.get) for run in (found.run["first"], found.run["second"])] == ["ladder", "kettle"]
    assert found.search("boils tea")[0][0, 0] == list(dataset.corpus).index("kettle")
    assert found.bytes_per_document > 0


def test_biencoder_is_the_cosine(dataset, queries, backbone, prompt):
    """The rival is ranked by something other than what it was trained for."""
    found = evaluation.biencoder_system(dataset, queries, backbone, prompt, 4)
    documents = unit(backbone.encode(prompt.document.ids([one.contents for one in dataset.corpus.values()]), 4))
    wanted = unit(backbone.encode(prompt.query.ids(list(queries.values())), 4)) @ documents.T
    for query_id, scores in zip(queries, wanted, strict=True):
        best = dict(zip(dataset.corpus, scores.tolist(), strict=True))
        assert found.run[query_id] == pytest.approx(best, abs=1e-5)
    assert found.bytes_per_document == 4 * backbone.width


@pytest.fixture
def teacher(dataset, queries, backbone, prompt, document_ids):
    """The teacher's row, and the score of every document for a query."""
    backbone.configure(similarity=3.0)
    embeddings = backbone.encode(document_ids, 8)
    reranker = Reranker(backbone, prompt, backbone)

    def rank(others, **changes) -> tuple[System, str]:
        params = dataclasses.replace(PARAMS, **changes)
        return evaluation.teacher_system(dataset, queries, reranker, embeddings, others, params)

    scores = {}
    for number, query_id in enumerate(queries):
        pairs = np.array([(number, row) for row in range(len(dataset.corpus))])
        ids = prompt.query.ids(list(queries.values()))
        (part,) = reranker.score_pairs(ids, document_ids, pairs, 16, document_embeddings=embeddings)
        found = dict(zip(part.pairs.tolist(), part.scores.tolist(), strict=True))
        scores[query_id] = {name: found[row] for row, name in enumerate(dataset.corpus)}
    return rank, scores


def test_teacher_reads_all_documents_of_a_small_corpus(teacher, dataset):
    """A score stands beside another document's name, or a query gets another query's."""
    rank, scores = teacher
    system, scope = rank([])
    assert scope == "all documents" and set(system.run) == set(scores)
    for query_id, wanted in scores.items():
        assert system.run[query_id] == pytest.approx(wanted, abs=1e-4)
    assert system.bytes_per_document == np.mean([len(one.contents.encode()) for one in dataset.corpus.values()])


def test_teacher_reads_the_others_best_of_a_large_corpus(teacher):
    """The pool is of the worst documents, misses a system's, or is of another query; scores lose their documents."""
    rank, scores = teacher
    first = {"sponge-0": {"broom": 1.0, "ladder": 3.0, "bucket": 2.0}, "torch-1": {"torch": 9.0, "broom": 8.0}}
    second = {"sponge-0": {"kettle": 5.0, "ladder": 4.0, "torch": 3.0}, "torch-1": {"torch": 0.2, "blanket": 0.1}}
    system, scope = rank([first, second], teacher_all_up_to=7)
    assert scope.startswith("the union of the first 2")
    assert {query_id: set(run) for query_id, run in system.run.items()} == {
        "sponge-0": {"ladder", "bucket", "kettle"},
        "torch-1": {"torch", "broom", "blanket"},
    }
    for query_id, run in system.run.items():
        assert run == pytest.approx({name: scores[query_id][name] for name in run}, abs=1e-4)


def test_no_system_ranks_the_document_of_a_query(dataset, backbone, prompt, document_ids, monkeypatch):
    """P06: a query finds itself first in a row of the table, or its row has a document less than the others."""
    monkeypatch.setattr(evaluation, "DEPTH", 5)
    test = {"ladder": {"kettle": 1}, **dataset.qrels["test"]}
    asked = {**dataset.queries, "ladder": "a ladder that reaches shelves"}
    known = Dataset(dataset.corpus, asked, {**dataset.qrels, "test": test})
    queries = known.split_queries("test")
    backbone.configure(similarity=3.0)
    embeddings = backbone.encode(document_ids, 8)
    ranking = {"ladder": 9.0, **{name: -float(place) for place, name in enumerate(dataset.corpus) if name != "ladder"}}

    class Retriever:
        bytes_per_document = 4

        def rank(self, texts, k):
            return {query_id: dict(list(ranking.items())[:k]) for query_id in texts}

    systems = [
        evaluation.bm25_system(known, queries),
        evaluation.biencoder_system(known, queries, backbone, prompt, 4),
        evaluation.student_system(known, queries, Retriever()),
        evaluation.teacher_system(known, queries, Reranker(backbone, prompt, backbone), embeddings, [], PARAMS)[0],
    ]
    for system in systems:
        assert "ladder" not in system.run["ladder"] and {len(run) for run in system.run.values()} == {5}


def test_table_is_of_the_judgements_given(dataset):
    """Figures of one system stand in the row of another, or per cent and shares are mixed up."""
    asked: list[str] = []
    right = System({"sponge-0": {"kettle": 1.0}, "torch-1": {"ladder": 2.0, "bucket": 1.0}}, asked.append, 8.06)
    half = System({"sponge-0": {"kettle": 1.0}, "torch-1": {"broom": 2.0}}, None, 4.0, 1.23456)
    systems = {"one": right, "other": half, "untimed": System(half.run, None, 4.0)}
    rows, per_query = evaluation.table(dataset.qrels["test"], systems, ["first", "second"])
    assert rows["one"]["nDCG@10"] == 100.0 and rows["other"]["nDCG@10"] == 50.0
    assert rows["other"]["ms_per_query"] == 1.235 and rows["other"]["ms_per_query_p95"] is None
    assert rows["untimed"]["ms_per_query"] is rows["untimed"]["ms_per_query_p95"] is None
    assert asked == ["first", "first", "second"] and 0 <= rows["one"]["ms_per_query"] <= rows["one"]["ms_per_query_p95"]
    assert rows["one"]["bytes_per_document"] == 8.1
    assert per_query["other"]["torch-1"]["nDCG@10"] == 0.0 and per_query["one"]["torch-1"]["nDCG@10"] == 1.0


def test_samples_show_what_was_found_with_its_grade(dataset):
    """A person is shown the ranking of another query, or grades of the training judgements."""
    queries = {**dataset.split_queries("test"), "kettle-0": "unjudged"}
    dataset.qrels["test"]["kettle-0"] = {}

    class Retriever:
        def search(self, texts, k):
            assert k == 5
            return [[types.SimpleNamespace(doc_id="ladder", score=1.23456, title=text, text="")] for text in texts]

    found = evaluation.sample_rankings(dataset, queries, Retriever(), 2)
    assert [(one["query_id"], one["hits"][0]["title"]) for one in found] == [
        (name, queries[name]) for name in list(queries)[:2]
    ]
    assert {one["query_id"]: one["hits"][0]["grade"] for one in found} == {"sponge-0": 0, "torch-1": 2}
    assert found[0]["hits"][0]["score"] == 1.2346
    assert set(found[0]["hits"][0]) == {"doc_id", "score", "title", "text", "grade"}, "reports have the bytes they had"
    assert len(evaluation.sample_rankings(dataset, queries, Retriever(), 50)) == 3
