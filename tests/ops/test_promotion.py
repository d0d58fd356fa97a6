"""The gate's decision: better, worse, tie, first ever, and each thing that refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rabtriever.data.metrics import METRICS, paired_bootstrap
from rabtriever.ops.promotion import Decision, GateParams, decide

GATE = GateParams(
    tolerance=1.0,
    confidence=0.95,
    bootstrap_samples=2000,
    min_ndcg_10=40.0,
    min_recall_100=80.0,
    max_total_loss=2.0,
)


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


def with_recall(challenger: dict[str, dict[str, float]], found: int) -> dict[str, dict[str, float]]:
    """The same metrics, with the relevant documents of the first `found` queries alone within the first hundred."""
    return {q: {**values, "R@100": float(place < found)} for place, (q, values) in enumerate(challenger.items())}


@pytest.mark.parametrize("champion", [scores(10), None])
def test_each_fault_refuses_and_is_named(champion: dict | None) -> None:
    """Prevents a better score from covering up lost documents or an artefact that does not load."""
    lost, recall = with_recall(scores(90), 79), "R@100 79.0 is under the floor of 80.0"
    answers = "does not answer (manifest of another kind)"
    decisions = [
        decide(lost, champion, GATE),
        decide(scores(90), champion, GATE, fault="manifest of another kind"),
        decide(lost, champion, GATE, fault="manifest of another kind"),
    ]
    assert not any(decision.promote for decision in decisions)
    assert [recall in decision.reason for decision in decisions] == [True, False, True]
    assert [answers in decision.reason for decision in decisions] == [False, True, True]


@pytest.mark.parametrize("champion", [scores(10), None])
def test_recall_at_the_floor_is_enough(champion: dict | None) -> None:
    """Prevents reading 'at or above the floor' as 'above'."""
    decision = decide(with_recall(scores(90), 80), champion, GATE)
    assert decision.promote and decision.recall_100 == GATE.min_recall_100


@pytest.mark.parametrize("changes", [{}, {"confidence": 0.5}, {"bootstrap_samples": 150}])
def test_interval_is_that_of_the_settings(changes: dict[str, Any]) -> None:
    """Prevents a confidence or a number of resamples that can be set and does nothing."""
    gate = replace(GATE, **changes)
    found = {f"q{i:03}": i * i % 101 / 101 for i in range(100)}
    challenger = {q: {**values, "nDCG@10": found[q]} for q, values in scores(0).items()}
    decision = decide(challenger, scores(50), gate)
    points = [{q: 100 * value for q, value in found.items()}, {q: 100 * v["nDCG@10"] for q, v in scores(50).items()}]
    wanted = paired_bootstrap(*points, gate.bootstrap_samples, 13, gate.confidence)
    assert decision.interval == wanted
    assert not changes or decision.interval != decide(challenger, scores(50), GATE).interval
    assert f"{100 * gate.confidence:g} % interval" in decision.reason


def test_same_inputs_give_the_same_decision() -> None:
    """Prevents a decision that depends on chance."""
    results: list[Decision] = [decide(scores(55), scores(50, first=10), GATE) for _ in range(2)]
    assert results[0] == results[1]


def test_other_queries_are_refused() -> None:
    """Prevents comparing metrics of two different sets of queries."""
    with pytest.raises(ValueError, match="same queries"):
        decide(scores(5, total=10), scores(5, total=11), GATE)


@pytest.mark.parametrize(("bar", "promoted"), [(52.0, True), (52.1, False), (40.0, True)])
@pytest.mark.parametrize("champion", [scores(50), None])
def test_s04_what_is_lost_in_sum_is_bounded(champion: dict | None, bar: float, promoted: bool) -> None:
    """S04: prevents a loss that no single comparison with the champion sees; at the limit is still allowed."""
    decision = decide(scores(50), champion, GATE, bars={"the best version": 10.0, "the bi-encoder": bar})
    assert decision.promote is promoted
    assert ("2.1 points below the 52.1 of the bi-encoder (max_total_loss is 2)" in decision.reason) is not promoted
    wider = replace(GATE, max_total_loss=2.1)
    assert decide(scores(50), champion, wider, bars={"the bi-encoder": bar}).promote
