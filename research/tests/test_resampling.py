"""Intervals over groups of queries and over seeds."""

from __future__ import annotations

import pytest

from rabtriever.data.metrics import paired_bootstrap
from research.resampling import LEAST, grouped_bounds, relevance_groups


def values(count: int, copies: int = 1) -> dict[str, float]:
    """Differences that scatter; each stands for `copies` queries."""
    return {f"q{place}-{copy}": ((7 * place) % 11 - 4) / 10 for place in range(count) for copy in range(copies)}


def test_groups_of_one_query_are_the_bootstrap_over_queries():
    """The two intervals stand in one table: where every query is a group they must agree."""
    one = values(60)
    known = paired_bootstrap(one, dict.fromkeys(one, 0.0), 10_000, 13, 0.95)
    found = grouped_bounds([one], {query: place for place, query in enumerate(one)})
    assert found.low == pytest.approx(known.low, abs=0.005) and found.high == pytest.approx(known.high, abs=0.005)


def test_paraphrases_tell_nothing_new():
    """Ten copies of every query made intervals three times too narrow."""
    copies = values(60, copies=10)
    found = grouped_bounds([copies], {query: query.split("-")[0] for query in copies})
    once = grouped_bounds([values(60)], {query: query for query in values(60)})
    assert found.high - found.low == pytest.approx(once.high - once.low, rel=0.05)


def test_large_groups_weigh_by_their_queries():
    """The middle of the interval is the mean over queries that the page shows, not that over groups."""
    one = {f"q{place}": 1.0 if place < 50 else 0.0 for place in range(100)}
    groups = {query: min(place // 5, 10) if place < 50 else 100 + place for place, query in enumerate(one)}
    found = grouped_bounds([one], groups)
    assert found.low < 0.5 < found.high and (found.low + found.high) / 2 == pytest.approx(0.5, abs=0.05)


def test_seeds_that_disagree_widen_the_interval():
    """A mean of three seeds was shown with an interval as if they were the only models there are."""
    base = values(60)
    seeds = [{query: value + shift for query, value in base.items()} for shift in (-0.3, 0.0, 0.3)]
    groups = {query: query for query in base}
    without, with_seeds = grouped_bounds(seeds, groups), grouped_bounds(seeds, groups, seeds=True)
    assert with_seeds.low < without.low and with_seeds.high > without.high
    assert with_seeds.high - with_seeds.low > 0.5


def test_nothing_is_told_of_too_few():
    """Eight strategies are no sample of strategies, nor one seed of seeds."""
    few = values(LEAST - 1)
    assert grouped_bounds([few], {query: query for query in few}) is None
    assert grouped_bounds([values(30)], {query: query for query in values(30)}, seeds=True) is None
    with pytest.raises(KeyError):
        grouped_bounds([values(30)], {})


def test_judged_as_wrong_does_not_join_a_group():
    """Grade 0 is a document that was looked at."""
    groups = relevance_groups({"a": {"d": 1, "e": 0}, "b": {"d": 2}, "c": {"d": 1, "e": 1}})
    assert groups["a"] == groups["b"] != groups["c"]
