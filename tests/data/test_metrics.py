"""Metrics against hand-worked values and an independent computation; the paired bootstrap."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rabtriever.data.metrics import (
    METRICS,
    Interval,
    paired_bootstrap,
    queries_without_relevant,
    score_queries,
    summarise,
)

DOCS = [f"d{n:02d}" for n in range(15)]
GRADES = st.dictionaries(st.sampled_from(DOCS), st.integers(0, 3), min_size=1, max_size=12)
# Few distinct scores: ties are the hard case.
SCORES = st.dictionaries(st.sampled_from(DOCS), st.sampled_from([-1.5, 0.0, 0.25, 7.0]), max_size=15)
QRELS = st.dictionaries(st.sampled_from("abcd"), GRADES, min_size=1)
RUNS = st.dictionaries(st.sampled_from("abcde"), SCORES)


def _run(*ranking):
    return {"q": {doc_id: float(-rank) for rank, doc_id in enumerate(ranking)}}


def test_golden_ndcg():
    """Exponential gain, a natural logarithm or another ideal: the figures compare with nobody's (hand calculation)."""
    scores = score_queries({"q": {"a": 2, "b": 3, "c": 1}}, _run("a", "b", "c"))
    assert scores["q"]["nDCG@10"] == pytest.approx(0.92249, abs=5e-6)


def test_ideal_is_from_all_judged_documents():
    """The ideal from the documents found makes a system look perfect that misses most (hand calculation)."""
    scores = score_queries({"q": {"a": 1, "b": 1, "c": 1}}, _run("a"))
    assert scores["q"]["nDCG@10"] == pytest.approx(1 / (1 + 1 / math.log2(3) + 0.5))
    assert scores["q"]["R@10"] == pytest.approx(1 / 3)


def test_cut_offs():
    """A metric looks one rank too far, or not far enough."""
    for rank, expected in {
        1: [1, 1, 1, 1],
        3: [0, 1, 1, 1],
        4: [0, 0, 1, 1],
        10: [0, 0, 1, 1],
        11: [0, 0, 0, 1],
    }.items():
        ranking = [f"x{n:03d}" for n in range(120)]
        ranking[rank - 1] = "a"
        found = score_queries({"q": {"a": 1}}, _run(*ranking))["q"]
        assert [found[name] for name in ("R@1", "R@3", "R@10", "R@100")] == expected
        assert found["S@1"] == expected[0]
        assert found["MRR@10"] == pytest.approx(1 / rank if rank <= 10 else 0)
    ranking = [f"x{n:03d}" for n in range(100)] + ["a"]
    assert score_queries({"q": {"a": 1}}, _run(*ranking))["q"]["R@100"] == 0


def test_ties_are_ordered_by_id():
    """Batch size decides which of two equal scores comes first, and so the figure."""
    for order in (("a", "b"), ("b", "a")):
        assert score_queries({"q": {"a": 1}}, {"q": dict.fromkeys(order, 0.5)})["q"]["S@1"] == 1
        assert score_queries({"q": {"b": 1}}, {"q": dict.fromkeys(order, 0.5)})["q"]["S@1"] == 0


def test_near_scores_are_told_apart():
    """Scores are cut to single precision on the way, and ties appear."""
    assert score_queries({"q": {"b": 1}}, {"q": {"a": 1.0, "b": 1.0 + 1e-12}})["q"]["S@1"] == 1


def test_query_missing_from_the_run_counts_zero():
    """A system that returns nothing for hard queries gets a better mean."""
    qrels = {"a": {"d": 1}, "b": {"d": 1}, "c": {"d": 1}}
    scores = score_queries(qrels, {"a": {"d": 1.0}, "c": {}})
    assert scores["b"] == scores["c"] == dict.fromkeys(METRICS, 0.0)
    assert summarise(scores)["S@1"] == pytest.approx(100 / 3)
    assert score_queries(qrels, {}) == dict.fromkeys(qrels, dict.fromkeys(METRICS, 0.0))


def test_query_without_relevant_document_is_left_out_and_listed():
    """A query that nobody can answer lowers every mean, or disappears unnoticed."""
    qrels = {"a": {"d": 1}, "b": {"d": 0}, "c": {}}
    assert list(score_queries(qrels, {"a": {"d": 1.0}, "b": {"d": 1.0}})) == ["a"]
    assert queries_without_relevant(qrels) == ["b", "c"]


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_score_that_is_no_number_is_refused(score):
    """NaN sorts anywhere."""
    with pytest.raises(ValueError, match="query 'q', document 'd'"):
        score_queries({"q": {"d": 1}}, {"q": {"d": score}})


def _reference(grades, scores):
    """The metrics as section 8 of the design defines them, written out."""
    ranked = sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))
    gains = [grades.get(doc_id, 0) for doc_id in ranked]
    ideal = sorted(grades.values(), reverse=True)
    relevant = sum(grade > 0 for grade in grades.values())

    def dcg(values):
        return sum(gain / math.log2(rank + 2) for rank, gain in enumerate(values[:10]))

    result = {f"R@{k}": sum(gain > 0 for gain in gains[:k]) / relevant for k in (1, 3, 10, 100)}
    first = next((rank for rank, gain in enumerate(gains[:10], 1) if gain > 0), None)
    return {**result, "nDCG@10": dcg(gains) / dcg(ideal), "MRR@10": 1 / first if first else 0, "S@1": float(first == 1)}


@settings(max_examples=150, deadline=None)
@given(qrels=QRELS, run=RUNS)
def test_agrees_with_the_definition(qrels, run):
    """A library's own conventions (ties, missing queries, averages) come through."""
    scores = score_queries(qrels, run)
    left_out = queries_without_relevant(qrels)
    assert sorted([*scores, *left_out]) == sorted(qrels)
    for query_id, found in scores.items():
        assert found == pytest.approx(_reference(qrels[query_id], run.get(query_id, {})))


@settings(max_examples=50, deadline=None)
@given(qrels=QRELS, run=RUNS, data=st.data())
def test_order_and_scale_change_nothing(qrels, run, data):
    """The order of a file, or a system's scale, changes a figure."""
    shuffled = {
        query_id: {doc_id: 3 * scores[doc_id] - 8 for doc_id in data.draw(st.permutations(list(scores)))}
        for query_id, scores in reversed(run.items())
    }
    assert score_queries(qrels, shuffled) == score_queries(qrels, run)


def test_summary_of_nothing_is_refused():
    """A test split without judgements gives NaN, and NaN is promoted."""
    with pytest.raises(ValueError, match="no query"):
        summarise({})


def test_the_bootstrap_is_that_of_its_seed() -> None:
    """Prevents a decision on a challenger that comes out otherwise when the gate is asked again."""
    first, second = ({str(one): float(value) for one, value in enumerate(values)} for values in np.random.rand(2, 40))
    found = [paired_bootstrap(first, second, 300, seed, 0.9) for seed in (5, 5, 6)]
    assert found[0] == found[1] != found[2]


def test_bootstrap_of_a_constant_difference():
    """The interval is not that of the difference."""
    champion = {f"q{n}": n / 100 for n in range(50)}
    better = {query_id: value + 0.25 for query_id, value in champion.items()}
    assert paired_bootstrap(better, champion, 200, 0, 0.95) == pytest.approx((0.25, 0.25, 0.25))
    assert paired_bootstrap(champion, better, 200, 0, 0.95) == pytest.approx((-0.25, -0.25, -0.25))
    assert paired_bootstrap(champion, champion, 200, 0, 0.95) == Interval(0.0, 0.0, 0.0)


def test_bootstrap_agrees_with_the_normal_approximation():
    """The interval has another width than its confidence says (normal theory at 2,000 queries)."""
    values = np.random.default_rng(0).normal(0.1, 1.0, 2000)
    challenger = {f"q{n}": float(value) for n, value in enumerate(values)}
    found = paired_bootstrap(challenger, dict.fromkeys(challenger, 0.0), 4000, 1, 0.95)
    half = 1.95996 * values.std() / math.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.1 * half)
    narrower = paired_bootstrap(challenger, dict.fromkeys(challenger, 0.0), 4000, 1, 0.5)
    assert found.low < narrower.low < narrower.high < found.high


def test_bootstrap_is_paired_and_repeatable():
    """Two noisy systems that always differ by the same look undecided; the decision changes from run to run."""
    generator = np.random.default_rng(3)
    champion = {f"q{n}": float(value) for n, value in enumerate(generator.random(60))}
    challenger = {query_id: value + 0.01 * (n % 2) for n, (query_id, value) in enumerate(champion.items())}
    one = paired_bootstrap(challenger, champion, 1000, 7, 0.95)
    other = paired_bootstrap(dict(reversed(challenger.items())), champion, 1000, 7, 0.95)
    assert one == other and 0 < one.low < one.mean < one.high < 0.01


@pytest.mark.parametrize(
    ("challenger", "champion", "samples", "confidence", "words"),
    [
        ({"a": 1.0}, {"b": 1.0}, 10, 0.9, r"only there: \['a'\]"),
        ({"a": 1.0, "b": 1.0}, {"b": 1.0}, 10, 0.9, "same queries"),
        ({}, {}, 10, 0.9, "at least one"),
        ({"a": 1.0}, {"a": math.nan}, 10, 0.9, "not finite"),
        ({"a": 1.0}, {"a": 1.0}, 0, 0.9, "samples is 0"),
        ({"a": 1.0}, {"a": 1.0}, 10, 95, "confidence 95"),
    ],
)
def test_bootstrap_refuses(challenger, champion, samples, confidence, words):
    """Systems measured on different queries are compared."""
    with pytest.raises(ValueError, match=words):
        paired_bootstrap(challenger, champion, samples, 0, confidence)


def test_recall_curve_counts_every_judged_query():
    """A query missing from the run, or one without a relevant document, shifts the curve of a plot unseen."""
    from rabtriever.data.metrics import recall_curve

    qrels = {"q": {"a": 1, "b": 2}, "r": {"a": 1}, "none": {"a": 0}}
    run = {"q": {"a": 0.9, "x": 0.8, "b": 0.7}, "none": {"a": 1.0}}
    assert recall_curve(qrels, run, (1, 3)) == pytest.approx({1: 25.0, 3: 50.0})
