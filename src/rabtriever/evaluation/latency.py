"""Time of one query, for systems that are compared with each other on a machine that may have other work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.core.progress import track

BUSY = 25.0  # per cent of the processors used by other programs, from which on latencies are not to be trusted


class Latency(NamedTuple):
    """Milliseconds of one query, each asked alone: the median and the 95th percentile."""

    median: float
    p95: float


def latencies(
    searches: Mapping[str, Callable[[str], object]], texts: Sequence[str], label: str | None = None
) -> dict[str, Latency]:
    """The latency of each system, all of them asked a query before any is asked the next.

    Whatever else the machine does meanwhile slows all systems alike. Each system is asked the first query once before,
    untimed.

    Args:
        searches: by system, what answers one query.
        texts: the queries, at least one.
        label: what the progress line says; no progress when None.
    """
    for search in searches.values():
        search(texts[0])
    spent: dict[str, list[float]] = {name: [] for name in searches}
    for text in track(texts, label):
        for name, search in searches.items():
            start = time.perf_counter()
            search(text)
            spent[name].append(1000 * (time.perf_counter() - start))
    return {name: Latency(*map(float, np.percentile(values, (50, 95)))) for name, values in spent.items()}


def others_cpu(seconds: float = 1.0) -> float:
    """Per cent of this machine's processors that other programs use, looked at while this one waits.

    The load average would also count what this program did in the last minute.
    """
    import psutil

    return psutil.cpu_percent(interval=seconds)
