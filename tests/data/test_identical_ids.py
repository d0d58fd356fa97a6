"""Documents with the id of a query are ignored for it, in runs and in metrics."""

from __future__ import annotations

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.identical_ids import ranked, with_own_document
from rabtriever.data.metrics import recall_curve, score_queries

CORPUS = {name: Document(name, "", f"text of {name}") for name in ("a", "b", "c", "d")}
QRELS = {"a": {"b": 1}, "c": {"c": 2}, "d": {"d": 0, "a": 1}, "x": {"a": 1}}
DATA = Dataset(CORPUS, {name: f"text of {name}" for name in QRELS}, {"train": {}, "test": QRELS})


def test_the_document_of_the_query_is_no_answer():
    """P06: every query finds itself first, and all figures say how well a system finds the query."""
    run = {"a": {"a": 9.0, "b": 1.0}, "d": {"d": 9.0, "a": 1.0}, "x": {"a": 3.0}}
    scores = score_queries(QRELS, run)
    assert [scores[name]["S@1"] for name in ("a", "d", "x")] == [1.0, 1.0, 1.0]
    assert recall_curve({name: QRELS[name] for name in run}, run, (1,)) == {1: 100.0}
    assert score_queries({"a": {"b": 1}}, {"a": {"a": 9.0}})["a"]["R@100"] == 0.0, "nothing else was found"


def test_a_document_judged_relevant_stays():
    """P06, neighbour: ids are equal by chance, and an answer that the judgements name cannot be found."""
    assert score_queries(QRELS, {"c": {"c": 2.0, "a": 1.0}})["c"]["S@1"] == 1.0
    assert with_own_document(DATA, QRELS) == {"a", "d"}


def test_the_query_costs_a_run_no_place():
    """P06: the last document of a run is cut off for the sake of one that is ignored."""
    asked = []

    def rank(depth: int) -> dict[str, dict[str, float]]:
        asked.append(depth)
        best = {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}
        return {query_id: dict(list(best.items())[:depth]) for query_id in QRELS}

    found = ranked(rank, DATA, QRELS, 2)
    assert {query_id: list(scores) for query_id, scores in found.items()} == {
        "a": ["b", "c"],
        "c": ["a", "b"],
        "d": ["a", "b"],
        "x": ["a", "b"],
    }
    assert ranked(rank, DATA, ["x"], 2)["x"] == {"a": 4.0, "b": 3.0} and asked == [3, 2]
