"""The promotion gate: whether a challenger may replace the champion. Numbers in, decision out; touches no registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rabtriever.core.settings import bounded
from rabtriever.data.metrics import Interval, paired_bootstrap, summarise

PerQuery = Mapping[str, Mapping[str, float]]
SEED = 13  # of the resampling
_ROUNDING = 1e-9  # of sums in points


@dataclass(frozen=True)
class GateParams:
    """Section `promote` of params.yaml; metrics are in per cent.

    Attributes:
        tolerance: how many points of nDCG@10 the interval may reach below the champion.
        confidence: coverage of the bootstrap interval.
        bootstrap_samples: resamples of the gate's queries.
        min_ndcg_10: floor on nDCG@10 while there is no champion to compare with.
        min_recall_100: floor on R@100 for every challenger.
        max_total_loss: how many points of nDCG@10 a challenger may lie below the best version of the same data, and
            below the bi-encoder of the same run. It bounds what a chain of promotions loses in sum.
    """

    tolerance: float = bounded(ge=0, le=100)
    confidence: float = bounded(gt=0, lt=1)
    bootstrap_samples: int = bounded(ge=100)
    min_ndcg_10: float = bounded(ge=0, le=100)
    min_recall_100: float = bounded(ge=0, le=100)
    max_total_loss: float = bounded(ge=0, le=100)


@dataclass(frozen=True)
class Decision:
    """What the gate decided.

    Attributes:
        promote: whether the challenger becomes the champion.
        reason: one sentence with the numbers that decided.
        ndcg_10: challenger's mean nDCG@10, per cent.
        recall_100: challenger's mean R@100, per cent.
        champion_ndcg_10: champion's mean nDCG@10 on the same queries, per cent; None without a champion.
        interval: challenger minus champion in nDCG@10 points, mean and bounds; None without a champion.
    """

    promote: bool
    reason: str
    ndcg_10: float
    recall_100: float
    champion_ndcg_10: float | None
    interval: Interval | None


def decide(
    challenger: PerQuery,
    champion: PerQuery | None,
    gate: GateParams,
    fault: str | None = None,
    bars: Mapping[str, float] = MappingProxyType({}),
) -> Decision:
    """Returns whether the challenger is promoted.

    It is when it loads and answers, its R@100 is at or above the floor, its nDCG@10 is at most `max_total_loss` points
    below each bar, and the paired bootstrap interval of its nDCG@10 minus the champion's lies above minus the
    tolerance; with no champion, when its nDCG@10 is at or above the absolute floor.

    Args:
        challenger: metrics per query, 0 to 1; in a retraining those of the dev queries, which no table reports.
        champion: the champion's on the same queries, None before the first promotion.
        gate: the limits.
        fault: why the challenger's artefact does not load or answer, None when it does.
        bars: mean nDCG@10 (per cent, same queries) of others that it must not fall far behind, by name.

    Raises:
        ValueError: the two cover different queries.
    """
    means = summarise(challenger)
    ndcg, recall = means["nDCG@10"], means["R@100"]
    interval = None if champion is None else _difference(challenger, champion, gate)
    faults = [f"it does not answer ({fault})"] if fault else []
    if recall < gate.min_recall_100:
        faults.append(f"R@100 {recall:.1f} is under the floor of {gate.min_recall_100:.1f}")
    faults += [
        f"nDCG@10 {ndcg:.1f} is {bar - ndcg:.1f} points below the {bar:.1f} of {name} "
        f"(max_total_loss is {gate.max_total_loss:g})"
        for name, bar in bars.items()
        if bar - ndcg > gate.max_total_loss + _ROUNDING
    ]
    if interval is None:
        compared = f"nDCG@10 {ndcg:.1f} with a first version's floor of {gate.min_ndcg_10:.1f}"
        if ndcg < gate.min_ndcg_10:
            faults.append(f"nDCG@10 {ndcg:.1f} is under a first version's floor of {gate.min_ndcg_10:.1f}")
    else:
        compared = _describe(interval, gate)
        if interval.low <= -gate.tolerance:
            faults.append(f"it may be worse than the champion: {compared}")
    reason = "; ".join(faults) if faults else f"{compared}; R@100 {recall:.1f}, floor {gate.min_recall_100:.1f}"
    champion_ndcg = None if champion is None else summarise(champion)["nDCG@10"]
    return Decision(not faults, reason, ndcg, recall, champion_ndcg, interval)


def _difference(challenger: PerQuery, champion: PerQuery, gate: GateParams) -> Interval:
    points = [{query: 100 * scores["nDCG@10"] for query, scores in side.items()} for side in (challenger, champion)]
    return paired_bootstrap(*points, samples=gate.bootstrap_samples, seed=SEED, confidence=gate.confidence)


def _describe(interval: Interval, gate: GateParams) -> str:
    return (
        f"nDCG@10 {interval.mean:+.1f} points against the champion "
        f"({100 * gate.confidence:g} % interval {interval.low:+.1f} to {interval.high:+.1f}, "
        f"tolerance {gate.tolerance:g})"
    )
