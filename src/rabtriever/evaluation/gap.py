"""What reading adds to a bi-encoder, and how much of that the student keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rabtriever.data.metrics import Interval, paired_bootstrap

SAMPLES, SEED, CONFIDENCE = 10_000, 13, 0.95
_BLOCK = 1000  # resamples drawn at once


class Share(NamedTuple):
    """A share of the gap in per cent, with its confidence interval."""

    value: float
    low: float
    high: float


def gap(teacher: Mapping[str, float], biencoder: Mapping[str, float]) -> Interval:
    """The teacher's lead over the bi-encoder: mean difference of a metric over the queries, with its 95 % interval.

    Args:
        teacher: the metric by query, in the unit of the answer.
        biencoder: the same queries.
    """
    return paired_bootstrap(teacher, biencoder, SAMPLES, SEED, CONFIDENCE)


def gap_closed(
    student: Mapping[str, float], teacher: Mapping[str, float], biencoder: Mapping[str, float]
) -> Share | None:
    """(student - bi-encoder) / (teacher - bi-encoder) in per cent, with a paired percentile bootstrap over queries.

    Resamples in which the teacher does not lead have no share and are left out. They are fewer than one in forty, as
    its lead is significant.

    Args:
        student: a metric by query.
        teacher: the same queries.
        biencoder: the same queries.

    Returns:
        None where the teacher's lead is not significant: a share of what may be nothing says nothing.

    Raises:
        ValueError: the query sets differ or are empty.
    """
    if gap(teacher, biencoder).low <= 0:
        return None
    queries = sorted(teacher)
    if sorted(student) != queries:
        raise ValueError(f"student has {len(student)} queries, teacher {len(queries)}; expected the same")
    values = np.array([[side[query] for query in queries] for side in (student, teacher, biencoder)])
    kept, lead = values[0] - values[2], values[1] - values[2]
    rng, shares = np.random.default_rng(SEED), []
    for _ in range(SAMPLES // _BLOCK):
        rows = rng.integers(len(queries), size=(_BLOCK, len(queries)))
        leads = lead[rows].mean(1)
        shares.append(kept[rows].mean(1)[leads > 0] / leads[leads > 0])
    low, high = np.quantile(100 * np.concatenate(shares), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Share(float(100 * kept.mean() / lead.mean()), float(low), float(high))


def gap_report(per_query: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str = "nDCG@10") -> dict[str, Any]:
    """The gap in points and the share that the student closes, as reports/evaluation.json has them.

    Args:
        per_query: metrics from 0 to 1 by system and query, with `student`, `teacher` and `biencoder`.
        metric: which of them.
    """
    points = {
        name: {query: 100 * values[metric] for query, values in per_query[name].items()}
        for name in ("student", "teacher", "biencoder")
    }
    lead, closed = gap(points["teacher"], points["biencoder"]), gap_closed(**points)
    over = paired_bootstrap(points["student"], points["biencoder"], SAMPLES, SEED, CONFIDENCE)
    return {
        "metric": metric,
        "gap": _rounded(lead),
        "gap_closed": None if closed is None else _rounded(closed),
        "student_vs_biencoder": _rounded(over),
    }


def _rounded(found: Interval | Share) -> dict[str, float]:
    return {name: round(value, 2) for name, value in found._asdict().items()}
