"""What the queries of finished trials say together: means over seeds, and paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from rabtriever.data.metrics import paired_bootstrap
from research.definition import Trial
from research.finished import TrialResult
from research.resampling import CONFIDENCE, SAMPLES, SEED

Values = dict[str, float]
K = TypeVar("K")


def by_seed(finished: Mapping[Trial, TrialResult], name: str, ablation: str = "") -> dict[int, TrialResult]:
    """The finished trials of a set, or of one of its ablations."""
    found = {trial.seed: one for trial, one in finished.items() if (trial.set, trial.ablation) == (name, ablation)}
    return dict(sorted(found.items()))


def mean_metric(results: Sequence[TrialResult], system: str, metric: str) -> float:
    """A metric of the trials' rows, per cent, averaged over them."""
    return round(float(np.mean([one.info["systems"][system][metric] for one in results])), 2)


def mean_over_seeds(results: Sequence[TrialResult], system: str) -> Values:
    """nDCG@10 from 0 to 1 of each query, averaged over trials with the same queries."""
    parts = [one.per_query[system] for one in results]
    return {query_id: float(np.mean([part[query_id] for part in parts])) for query_id in parts[0]}


def interval(results: Sequence[TrialResult], system: str) -> dict[str, float]:
    """The ends of the 95 % bootstrap interval over queries of a system's nDCG@10, per cent."""
    values = mean_over_seeds(results, system)
    found = paired_bootstrap(values, dict.fromkeys(values, 0.0), SAMPLES, SEED, CONFIDENCE)
    return {"low": per_cent(found.low), "high": per_cent(found.high)}


def difference(
    results: Sequence[TrialResult], system: str, others: Sequence[TrialResult], other: str
) -> dict[str, float] | None:
    """Mean nDCG@10 of one system less another's, with the paired interval; None where one was not measured."""
    if any(system not in one.per_query for one in results) or any(other not in one.per_query for one in others):
        return None
    return paired(mean_over_seeds(results, system), mean_over_seeds(others, other))


def paired(ours: Values, theirs: Values) -> dict[str, float]:
    """Mean of ours less theirs by query, per cent, and the ends of its interval."""
    found = paired_bootstrap(ours, theirs, SAMPLES, SEED, CONFIDENCE)
    return {"difference": per_cent(found.mean), "low": per_cent(found.low), "high": per_cent(found.high)}


def per_cent(value: float) -> float:
    """A share as the page shows it, with two digits."""
    return round(100 * value, 2)


def ends(bounds: tuple[float, float] | None) -> dict[str, float] | None:
    """The ends of an interval of shares, per cent."""
    return None if bounds is None else {"low": per_cent(bounds[0]), "high": per_cent(bounds[1])}


def over_all_queries(parts: Iterable[tuple[K, str, Values, Values]]) -> dict[K, dict[str, float]]:
    """The paired difference by key over the queries of all sets, each query counted once.

    Args:
        parts: key, set, and the two values of each of its queries.
    """
    joined: dict[K, tuple[Values, Values]] = {}
    for key, name, *both in parts:
        for values, part in zip(joined.setdefault(key, ({}, {})), both, strict=True):
            values.update({f"{name} {query_id}": value for query_id, value in part.items()})
    return {key: {**paired(ours, theirs), "queries": len(ours)} for key, (ours, theirs) in joined.items()}
