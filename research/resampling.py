"""Intervals that do not take a study's queries for independent, nor its seeds for the only ones.

The paired bootstrap over queries (metrics.py) is what the study's goals are judged by. Several queries that ask for the
same documents, paraphrases of each other as often as not, say less than as many that ask for different ones, and three
seeds are three draws. Here whole groups of queries with the same right documents are resampled, and seeds with them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.data.beir_io import Qrels

SAMPLES, SEED, CONFIDENCE = 10_000, 13, 0.95
LEAST = 10  # groups; what fewer of them say of others is nothing

Groups = Mapping[str, int | str]  # the group of each query


class Bounds(NamedTuple):
    """Ends of an interval, in the unit of the values."""

    low: float
    high: float


def relevance_groups(qrels: Qrels) -> dict[str, int]:
    """Numbers of groups by query: those with the same relevant documents have the same.

    >>> relevance_groups({"a": {"d": 1, "e": 0}, "b": {"e": 2}, "c": {"d": 2}})
    {'a': 0, 'b': 1, 'c': 0}
    """
    numbers: dict[frozenset[str], int] = {}
    right = {
        query_id: frozenset(doc for doc, grade in judged.items() if grade > 0) for query_id, judged in qrels.items()
    }
    return {query_id: numbers.setdefault(documents, len(numbers)) for query_id, documents in right.items()}


def grouped_bounds(differences: Sequence[Mapping[str, float]], groups: Groups, seeds: bool = False) -> Bounds | None:
    """Percentile interval of the mean difference, from resampling groups of queries (Field and Welsh 2007).

    Args:
        differences: by query, of each seed; the same queries in all.
        groups: of at least those queries.
        seeds: whether seeds are resampled as well; with few of them the interval is still too narrow.

    Returns:
        None where there are too few groups, or where seeds are asked for and there is one.

    Raises:
        KeyError: a query without a group.
    """
    queries = sorted(differences[0])
    values = np.array([[one[query_id] for query_id in queries] for one in differences])  # (S, Q)
    labels, place = np.unique([groups[query_id] for query_id in queries], return_inverse=True)
    if len(labels) < LEAST or (seeds and len(values) < 2):
        return None
    drawn = _drawn("groups", len(labels))  # (N, G)
    sums = np.stack([np.bincount(place, row, len(labels)) for row in values], axis=1)  # (G, S)
    totals = drawn @ sums / (drawn @ np.bincount(place, minlength=len(labels)))[:, None]  # (N, S)
    count = len(values)
    picked = _drawn("seeds", count) / count if seeds else 1 / count
    low, high = np.quantile((totals * picked).sum(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Bounds(float(low), float(high))


@functools.lru_cache(maxsize=2)  # of a set's groups and of its seeds, for all its rivals
def _drawn(what: str, count: int) -> np.ndarray:
    """(N, count) how often each of so many things is drawn in each resample, float64 for the products with it."""
    rng = np.random.default_rng((SEED, *what.encode()))  # a stream of its own: groups and seeds are drawn apart
    return rng.multinomial(count, np.full(count, 1 / count), SAMPLES).astype(np.float64)
