"""Judgements as rows, and which documents may be negatives."""

import numpy as np
import pytest

from rabtriever.data.beir_io import Document
from rabtriever.data.judgements import Judgements, draw

CORPUS = {name: Document(name, "", name) for name in ("a", "b", "c", "d", "e")}
QRELS = {
    "q2": {"b": 3, "d": 1, "c": 0},
    "q1": {"a": 1, "b": 2},
    "judged wrong only": {"e": 0},
}


@pytest.fixture
def judgements() -> Judgements:
    """Rows a=0, b=1, c=2, d=3, e=4; c and e are no query's positive."""
    return Judgements.build(CORPUS, QRELS)


def test_rows(judgements):
    """Rows that depend on file order, grade 0 taken for a positive, or a query without positives kept."""
    assert judgements.query_ids == ["q1", "q2"]
    assert judgements.grades == [{0: 1, 1: 2}, {1: 3, 3: 1}]
    assert judgements.positive_for_any.tolist() == [0, 1, 3]
    assert judgements.texts({"q1": "one", "q2": "two", "x": "none"}) == ["one", "two"]
    assert Judgements.build(CORPUS, dict(reversed(QRELS.items()))).grades == judgements.grades


def test_hard_negatives_are_judged_documents_that_are_wrong(judgements):
    """A positive, or a document new to the corpus, is trained on as wrong."""
    scores = np.array([[0.9, 0.8, 1.0, 0.1, 2.0], [0.3, 0.8, 1.0, 0.9, 2.0]])
    assert judgements.hardest(scores, 0, 2, eligible=True).tolist() == [[3, -1], [2, 0]]
    assert judgements.hardest(scores[1:], 1, 1, eligible=True).tolist() == [[2]]


def test_unjudged_documents_are_kept_apart(judgements):
    """A document new to the corpus lands among the negatives, or a judged one among the unlabelled."""
    scores = np.array([[0.9, 0.8, 1.0, 0.1, 2.0]])
    assert judgements.unjudged.tolist() == [2, 4]
    assert judgements.hardest(scores, 0, 3, eligible=False).tolist() == [[4, 2, -1]]


def test_what_was_judged_wrong_is_a_negative_of_its_query(judgements):
    """Negatives that a user has written down are never trained on, or easy ones push the hard ones out."""
    assert judgements.rejected == [frozenset(), {2}]
    scores = np.array([[0.3, 0.8, -1.0, 0.9, 2.0]])
    assert judgements.hardest(scores, 1, 3, eligible=True).tolist() == [[0, 2, -1]]
    assert judgements.hardest(-scores, 1, 1, eligible=True).tolist() == [[2]]
    assert judgements.hardest(scores, 1, 3, eligible=False).tolist() == [[4, -1, -1]]


def test_hard_negatives_are_the_best_scored():
    """The hardest are lost because positives stand above them, or ties are broken by chance."""
    corpus = {f"{n}": Document(f"{n}", "", "x") for n in range(8)}
    many = Judgements.build(corpus, {"q": {"0": 1, "1": 1, "2": 1}, "r": {f"{n}": 1 for n in range(3, 8)}})
    scores = np.array([[9.0, 8.0, 7.0, 1.0, 3.0, 2.0, 3.0, 0.0]])
    assert many.hardest(scores, 0, 3, eligible=True).tolist() == [[4, 6, 5]]


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
