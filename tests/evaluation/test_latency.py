"""The latencies of the evaluation table: which queries they are of, and in which order systems are asked."""

import pytest

from rabtriever.evaluation import latency
from rabtriever.evaluation.latency import Latency, latencies


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the measurement reads, in seconds."""
    now = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    return now


def test_systems_are_asked_in_turn(clock):
    """A machine that is busy for a moment slows one system alone, and another looks faster than it is."""
    asked = []
    searches = {name: lambda text, name=name: asked.append((name, text)) for name in ("one", "other")}
    latencies(searches, ["a", "b"])
    assert asked == [
        ("one", "a"), ("other", "a"),  # to warm up
        ("one", "a"), ("other", "a"), ("one", "b"), ("other", "b"),
    ]  # fmt: skip


def test_median_and_p95_by_hand(clock):
    """Seconds pass for milliseconds, the first search counts, or the mean hides the slow queries."""
    spent = iter([9.0, *(number / 1000 for number in range(1, 22))])  # 21 queries of 1 ms to 21 ms

    def search(text: str) -> None:
        clock[0] += next(spent)

    assert latencies({"one": search}, ["query"] * 21) == {"one": pytest.approx(Latency(11.0, 20.0))}


def test_others_are_told_from_this_program(monkeypatch):
    """The work that the pipeline did a moment ago passes for another program's."""
    import psutil

    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 100 * interval)
    assert latency.others_cpu(0.5) == 50.0, "what was used while this program waited"
