"""The gate's decision: better, worse, tie, first ever, and each thing that refuses."""

from __future__ import annotations

import pytest

from rabtriever.metrics import METRICS
from rabtriever.promotion import Decision, GateParams, decide

GATE = GateParams(tolerance=1.0, confidence=0.95, bootstrap_samples=2000, seed=3, min_ndcg_10=40.0, min_recall_100=80.0)


def scores(right: int, total: int = 100, first: int = 0) -> dict[str, dict[str, float]]:
    """Metrics of a system that answers `right` queries perfectly, from the one at place `first` on, and misses others.

    Every relevant document is within the first hundred.
    """
    hits = {(first + place) % total for place in range(right)}
    return {f"q{i:03}": {**dict.fromkeys(METRICS, float(i in hits)), "R@100": 1.0} for i in range(total)}


def test_first_version_meets_absolute_floors() -> None:
    """Prevents a useless first champion, and a first version that can never be promoted."""
    assert decide(scores(40), None, GATE).promote
    refused = decide(scores(39), None, GATE)
    assert not refused.promote and refused.interval is None and "39.0 is under" in refused.reason


@pytest.mark.parametrize(
    ("challenger", "champion", "promoted"),
    [
        (scores(60), scores(40), True),  # clearly better
        (scores(40), scores(60), False),  # clearly worse
        (scores(50), scores(50), True),  # the same answers: the interval is [0, 0]
        (scores(50), scores(50, first=50), False),  # equal means, opposite answers: may well be worse
        (scores(30), scores(20), True),  # better, though under the floor of a first version
    ],
)
def test_comparison_is_paired(challenger: dict, champion: dict, promoted: bool) -> None:
    """Prevents comparing means alone, or unpaired: the last case but one has a mean difference of zero."""
    assert decide(challenger, champion, GATE).promote is promoted


def test_interval_is_in_points_and_has_its_sign() -> None:
    """Prevents a swapped difference and fractions compared with a tolerance in points."""
    decision = decide(scores(60), scores(50), GATE)
    assert decision.interval.mean == pytest.approx(10.0)
    assert 0 < decision.interval.low < 10 < decision.interval.high < 20
    assert (decision.ndcg_10, decision.champion_ndcg_10) == (60.0, 50.0)


def test_bound_on_the_tolerance_is_refused() -> None:
    """Prevents reading 'above minus the tolerance' as 'at least'."""
    worse = {query: {**values, "nDCG@10": 0.49} for query, values in scores(0).items()}
    even = {query: {**values, "nDCG@10": 0.5} for query, values in scores(0).items()}
    gate = GateParams(**{**vars(GATE), "tolerance": 1.0000001})
    assert decide(worse, even, gate).promote  # one point below everywhere: the interval is [-1, -1]
    gate = GateParams(**{**vars(GATE), "tolerance": 0.9999999})
    assert not decide(worse, even, gate).promote
    assert not decide(even, even, GateParams(**{**vars(GATE), "tolerance": 0.0})).promote


def test_each_fault_refuses_and_is_named() -> None:
    """Prevents a better score from covering up lost documents or an artefact that does not load."""
    lost = {query: {**values, "R@100": 0.79} for query, values in scores(90).items()}
    decision = decide(lost, scores(10), GATE, fault="manifest of another kind")
    assert not decision.promote
    assert "R@100 79.0 is under the floor of 80.0" in decision.reason
    assert "does not answer (manifest of another kind)" in decision.reason


def test_same_inputs_give_the_same_decision() -> None:
    """Prevents a decision that depends on chance."""
    results: list[Decision] = [decide(scores(55), scores(50, first=10), GATE) for _ in range(2)]
    assert results[0] == results[1]


def test_other_queries_are_refused() -> None:
    """Prevents comparing two different test sets."""
    with pytest.raises(ValueError, match="same queries"):
        decide(scores(5, total=10), scores(5, total=11), GATE)
