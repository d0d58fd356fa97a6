"""Per-query retrieval metrics through ir_measures, their means, and the paired bootstrap.

Owns the conventions. Every judged query counts, and a query that the run lacks counts 0. A query without a relevant
document (grade 1 or more) is left out and can be listed. A document with the id of the query is ignored, see
`identical_ids`. Equal scores are ordered by document id, ascending. nDCG has linear gain, log2 discount and its ideal
from all judged documents, as in trec_eval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.data.beir_io import Qrels, Run
from rabtriever.data.identical_ids import is_ignored

METRICS = ("nDCG@10", "MRR@10", "R@1", "R@3", "R@10", "R@100", "S@1")
_MEASURES = {"MRR@10": "RR@10", "S@1": "Success@1"}  # ir_measures' names where they differ
_DEPTH = 100  # the largest cut-off above
_BLOCK = 1_000_000  # resampled values held at a time


class Interval(NamedTuple):
    """A mean difference with its confidence interval, in the unit of the values given."""

    mean: float
    low: float
    high: float


def score_queries(qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Every metric of METRICS, from 0 to 1, for each query of `qrels` that has a relevant document.

    Args:
        qrels: Judgements; documents that are not judged count as not relevant.
        run: Scores, higher is better. Queries that are not judged are ignored.

    Raises:
        ValueError: If a score is NaN or infinite.

    >>> scores = score_queries({"q": {"a": 2, "b": 3, "c": 1}}, {"q": {"a": 0.9, "b": 0.8, "c": 0.7}})
    >>> round(scores["q"]["nDCG@10"], 5)
    0.92249
    """
    import ir_measures

    judged, ranks = _comparable(qrels, run)
    names = {ir_measures.parse_measure(_MEASURES.get(name, name)): name for name in METRICS}
    result = {query_id: dict.fromkeys(METRICS, 0.0) for query_id in judged}
    if ranks:  # the scorers refuse an empty run
        for metric in ir_measures.iter_calc(list(names), judged, ranks):
            result[metric.query_id][names[metric.measure]] = float(metric.value)
    return result


def queries_without_relevant(qrels: Qrels) -> list[str]:
    """The queries that no metric is computed for, as none of their documents has a grade of 1 or more."""
    return [query_id for query_id, grades in qrels.items() if max(grades.values(), default=0) < 1]


def _comparable(qrels: Qrels, run: Run) -> tuple[Qrels, Run]:
    """The judgements of queries with a relevant document, and the run over these queries with scores from ranks."""
    left_out = set(queries_without_relevant(qrels))
    judged = {query_id: grades for query_id, grades in qrels.items() if query_id not in left_out}
    found = {
        query_id: _without_own(query_id, run[query_id], grades)
        for query_id, grades in judged.items()
        if query_id in run
    }
    return judged, {query_id: _rank_scores(query_id, scores) for query_id, scores in found.items() if scores}


def _without_own(query_id: str, scores: Mapping[str, float], grades: Mapping[str, int]) -> dict[str, float]:
    return {doc_id: score for doc_id, score in scores.items() if not is_ignored(query_id, doc_id, grades)}


def _rank_scores(query_id: str, scores: Mapping[str, float]) -> dict[str, float]:
    """Scores made from ranks, so that scorers with different rules for ties agree."""
    for doc_id, score in scores.items():
        if not math.isfinite(score):
            raise ValueError(f"query {query_id!r}, document {doc_id!r}: score {score} is not finite; correct the run")
    ranked = sorted(scores, key=lambda doc_id: (-scores[doc_id], doc_id))[:_DEPTH]
    return {doc_id: float(-rank) for rank, doc_id in enumerate(ranked)}


def summarise(per_query: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over the queries, in per cent.

    Raises:
        ValueError: If there are no queries.
    """
    if not per_query:
        raise ValueError("there is no query to take the mean over; expected judgements with a relevant document")
    return {name: 100 * math.fsum(scores[name] for scores in per_query.values()) / len(per_query) for name in METRICS}


def paired_bootstrap(
    challenger: Mapping[str, float], champion: Mapping[str, float], samples: int, seed: int, confidence: float
) -> Interval:
    """Percentile interval of the mean of challenger minus champion, from resampling queries (Efron 1979).

    Args:
        challenger: Value of one metric per query.
        champion: Value of the same metric for the system to compare with, over the same queries.
        samples: Number of resamples.
        seed: Seed of the resampling; the order of the queries does not matter.
        confidence: Coverage of the interval, between 0 and 1.

    Raises:
        ValueError: If the query sets differ or are empty, a value is not finite, or `samples` or `confidence` is out of
            range.
    """
    if set(challenger) != set(champion) or not challenger:
        only, other = sorted(set(challenger) - set(champion)), sorted(set(champion) - set(challenger))
        raise ValueError(
            f"challenger has {len(challenger)} queries (only there: {only[:3]}), champion {len(champion)} (only there: "
            f"{other[:3]}); expected the same queries, at least one; evaluate both on one test set"
        )
    if samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"samples is {samples}, confidence {confidence}; expected 1 or more, and between 0 and 1")
    differences = np.array([challenger[query_id] - champion[query_id] for query_id in sorted(challenger)])
    if not np.isfinite(differences).all():
        raise ValueError("a value of challenger or champion is not finite; expected metrics from 0 to 1")
    mean = float(differences.mean())
    if len(differences) == 1:  # scipy refuses what resampling cannot change
        return Interval(mean, mean, mean)
    from scipy.stats import bootstrap  # not imported above: it takes a second

    low, high = bootstrap(
        (differences,),
        np.mean,
        n_resamples=samples,
        batch=max(1, _BLOCK // len(differences)),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(low), float(high))


def recall_curve(qrels: Qrels, run: Run, cutoffs: Sequence[int]) -> dict[int, float]:
    """Mean Recall@k in per cent for each cut-off k up to 100, under the conventions of `score_queries`."""
    import ir_measures

    judged, ranks = _comparable(qrels, run)
    totals = dict.fromkeys(cutoffs, 0.0)
    if ranks:
        for metric in ir_measures.iter_calc([ir_measures.R @ k for k in cutoffs], judged, ranks):
            totals[metric.measure["cutoff"]] += float(metric.value)
    return {k: 100.0 * total / max(1, len(judged)) for k, total in totals.items()}
