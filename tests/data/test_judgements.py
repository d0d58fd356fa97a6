"""Judgements as rows, and which documents may be negatives."""

import numpy as np
import pytest

from rabtriever.data.beir_io import Document
from rabtriever.data.judgements import Judgements, draw, most, without

CORPUS = {name: Document(name, "", name) for name in ("a", "b", "c", "d", "e")}
QRELS = {
    "q2": {"b": 3, "d": 1, "c": 0},
    "q1": {"a": 1, "b": 2},
    "judged wrong only": {"e": 0},
}
QUERIES = {query_id: f"a need, {query_id}" for query_id in QRELS}


@pytest.fixture
def judgements() -> Judgements:
    """Rows a=0, b=1, c=2, d=3, e=4; c and e are no query's positive."""
    return Judgements.build(CORPUS, QRELS, QUERIES)


def test_rows(judgements):
    """Rows that depend on file order, grade 0 taken for a positive, or a query without positives kept."""
    assert judgements.query_ids == ["q1", "q2"]
    assert judgements.grades == [{0: 1, 1: 2}, {1: 3, 3: 1}]
    assert judgements.positive_for_any.tolist() == [0, 1, 3]
    assert judgements.texts({"q1": "one", "q2": "two", "x": "none"}) == ["one", "two"]
    assert Judgements.build(CORPUS, dict(reversed(QRELS.items())), QUERIES).grades == judgements.grades


def test_hard_negatives_are_judged_documents_that_are_wrong(judgements):
    """A positive, or a document new to the corpus, is trained on as wrong."""
    scores = np.array([[0.9, 0.8, 1.0, 0.1, 2.0], [0.3, 0.8, 1.0, 0.9, 2.0]])
    assert judgements.hardest(scores, 0, 2).tolist() == [[3, -1], [2, 0]]
    assert judgements.hardest(scores[1:], 1, 1).tolist() == [[2]]


def test_what_was_judged_wrong_is_a_negative_of_its_query(judgements):
    """Negatives that a user has written down are never trained on, or easy ones push the hard ones out."""
    assert judgements.rejected == [frozenset(), {2}]
    scores = np.array([[0.3, 0.8, -1.0, 0.9, 2.0]])
    assert judgements.hardest(scores, 1, 3).tolist() == [[0, 2, -1]]
    assert judgements.hardest(-scores, 1, 1).tolist() == [[2]]


def test_hard_negatives_are_the_best_scored():
    """The hardest are lost because positives stand above them, or ties are broken by chance."""
    corpus = {f"{n}": Document(f"{n}", "", f"x {n}") for n in range(8)}
    qrels = {"q": {"0": 1, "1": 1, "2": 1}, "r": {f"{n}": 1 for n in range(3, 8)}}
    many = Judgements.build(corpus, qrels, {"q": "q", "r": "r"})
    scores = np.array([[9.0, 8.0, 7.0, 1.0, 3.0, 2.0, 3.0, 0.0]])
    assert many.hardest(scores, 0, 3).tolist() == [[4, 6, 5]]


def test_positives_are_drawn_by_grade(judgements):
    """The best document of a query is seen no more often than its weakest (3 : 1, within four deviations)."""
    rng = np.random.default_rng(0)
    drawn = [judgements.positive(1, rng) for _ in range(2000)]
    assert set(drawn) == {1, 3}
    assert drawn.count(1) / 2000 == pytest.approx(0.75, abs=4 * (0.75 * 0.25 / 2000) ** 0.5)


def test_sampled_queries_are_different(judgements):
    """A query twice in a batch is its own negative; or a small set cannot fill a batch and stops the run."""
    assert sorted(judgements.sample_queries(9, np.random.default_rng(0)).tolist()) == [0, 1]
    assert len(judgements.sample_queries(1, np.random.default_rng(0))) == 1


def test_draw():
    """Fillers are taken for documents, or one entry comes twice."""
    rng = np.random.default_rng(0)
    assert draw([4, -1, 2, -1], 5, rng) == [4, 2]
    for _ in range(20):
        found = draw(np.array([3, 5, 7, 9, -1]), 3, rng)
        assert len(set(found)) == 3 and set(found) <= {3, 5, 7, 9}
    assert draw([], 2, rng) == draw([1, 2], 0, rng) == []


def test_judgements_of_equal_query_texts_are_united():
    """P07: what is right for a query under one id is drawn as its negative under another."""
    qrels = {"q2": {"a": 1, "c": 0}, "q1": {"b": 1, "a": 2, "d": 0}, "r": {"c": 1, "d": 1}, "q3": {"e": 0}}
    queries = {"q1": "a need", "q2": "A need!", "q3": "a  need", "r": "another"}
    found = Judgements.build(CORPUS, qrels, queries)
    assert found.query_ids == ["q1", "r"]
    assert found.grades == [{0: 2, 1: 1}, {2: 1, 3: 1}], "of two grades the higher one"
    assert found.rejected == [{2, 3, 4}, frozenset()]
    scores = np.array([[5.0, 4.0, 3.0, 2.0, 1.0]])
    assert found.hardest(scores, 0, 4).tolist() == [[2, 3, 4, -1]]


COPIES = {
    name: Document(name, "", text)
    for name, text in {"a": "one text", "b": "other", "a2": "One text.", "c": "third", "b2": "Other"}.items()
}


def test_documents_of_equal_text_are_one():
    """P07: a copy of a known right document is drawn as a negative. Neighbour: a negative is drawn in two copies."""
    qrels = {"q": {"a2": 2, "c": 0}, "r": {"b": 1}}
    found = Judgements.build(COPIES, qrels, {"q": "need", "r": "another"})
    assert found.grades == [{0: 2, 2: 2}, {1: 1, 4: 1}]
    assert found.positive_for_any.tolist() == [0, 1, 2, 4]
    assert found.negatives.tolist() == [0, 1]
    scores = np.array([[9.0, 1.0, 8.0, 3.0, 2.0]] * 2)
    assert found.hardest(scores, 0, 4).tolist() == [[3, 1, -1, -1], [0, -1, -1, -1]]
    rng = np.random.default_rng(0)
    assert {found.positive(0, rng) for _ in range(9)} == {0}, "a text with copies is drawn no more often"
    assert found.distinct([2, 4, 0, 3]) == [2, 4, 3]


def test_one_copy_judged_right_and_another_wrong():
    """P07, neighbour: a text is a positive and a negative of one query."""
    found = Judgements.build(COPIES, {"q": {"a": 1, "a2": 0, "b2": 0}}, {"q": "need"})
    assert found.grades == [{0: 1, 2: 1}] and found.rejected == [{1, 4}]
    assert found.hardest(np.zeros((1, 5)), 0, 3).tolist() == [[1, -1, -1]]


def test_a_query_is_no_document_of_its_own():
    """P06: the document of a query's id, or a copy of it, is its positive or its negative. Neighbour: judged so."""
    qrels = {"a": {"b": 1, "a": 0}, "c": {"c": 1, "a": 1}, "r": {"b": 1}}
    found = Judgements.build(COPIES, qrels, {"a": "one text", "c": "third", "r": "other"})
    assert found.ignored == [{0, 2}, frozenset(), frozenset()]
    assert found.grades[0] == {1: 1, 4: 1} and found.rejected[0] == frozenset()
    assert found.grades[1] == {0: 1, 2: 1, 3: 1}, "judged relevant, so not ignored"
    assert found.eligible(0, range(5)).tolist() == [False, True, False, True, True]
    assert found.hardest(np.zeros((3, 5)), 0, 2).tolist() == [[3, -1], [1, -1], [0, 3]]
    assert without([0, 1, 2, 3], found.ignored[0], 2) == [1, 3] and most(found.ignored) == 2


def test_a_copy_that_is_judged_relevant_is_kept():
    """P06, P07: the text of the query is right under another id, which is neither ignored nor a reason to show both."""
    found = Judgements.build(COPIES, {"a": {"a2": 1}}, {"a": "one text"})
    assert found.grades == [{2: 1}] and found.ignored == [{0}]
    assert found.positive(0, np.random.default_rng(0)) == 2
