"""Queries of concurrent requests are answered together, and never mixed up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from rabtriever.server.batching import Batcher, TooManyWaitingError


class Worker:
    """Answers each query with its length; `gate` holds it back."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, queries: list[str]) -> list[int]:
        assert self.gate.wait(30)
        self.batches.append(queries)
        if "poison" in queries:
            raise RuntimeError("not this one")
        return [len(query) for query in queries]


def batcher(worker: Worker, size: int = 4, wait: float = 0.0, most: int = 100) -> Batcher[str, int]:
    return Batcher(worker.answer, size, wait, most)


async def held(worker: Worker, made: Batcher[str, int]) -> asyncio.Task[list[int]]:
    """Begins a batch that keeps the thread until the gate opens."""
    worker.gate.clear()
    first = asyncio.create_task(made.ask(["first"]))
    await asyncio.sleep(0.05)
    return first


def test_what_waits_is_one_batch() -> None:
    """Prevents an encoding for each query while many wait."""

    async def many() -> None:
        worker = Worker()
        made = batcher(worker)
        first = await held(worker, made)
        others = [asyncio.create_task(made.ask(["x" * number])) for number in range(1, 6)]
        await asyncio.sleep(0)
        worker.gate.set()
        assert await asyncio.gather(first, *others) == [[5], [1], [2], [3], [4], [5]]
        assert [len(batch) for batch in worker.batches] == [1, 4, 1]
        await made.stop()

    asyncio.run(many())


def test_a_request_stays_together() -> None:
    """Prevents results of one request from two versions."""

    async def several() -> None:
        worker = Worker()
        made = batcher(worker)
        first = await held(worker, made)
        asked = (["a"], ["b", "bb", "bbb", "bbbb"], ["c"] * 9, ["d"])
        others = [asyncio.create_task(made.ask(queries)) for queries in asked]
        await asyncio.sleep(0)
        worker.gate.set()
        assert await asyncio.gather(first, *others) == [[5], [1], [1, 2, 3, 4], [1] * 9, [1]]
        assert [len(batch) for batch in worker.batches] == [1, 1, 4, 9, 1]
        await made.stop()

    asyncio.run(several())


def test_one_request_cannot_fail_others() -> None:
    """Prevents a query that breaks the model from breaking all that were asked at the same time."""

    async def poisoned() -> None:
        worker = Worker()
        made = batcher(worker)
        first = await held(worker, made)
        others = [asyncio.create_task(made.ask([query])) for query in ("a", "poison", "bb")]
        await asyncio.sleep(0)
        worker.gate.set()
        answers = await asyncio.gather(first, *others, return_exceptions=True)
        assert [answers[0], answers[1], answers[3]] == [[5], [1], [2]] and isinstance(answers[2], RuntimeError)
        assert await made.ask(["after"]) == [5]
        await made.stop()

    asyncio.run(poisoned())


def test_too_many_are_refused_at_once() -> None:
    """Prevents a queue in which every request waits until its client has gone."""

    async def crowded() -> None:
        worker = Worker()
        made = batcher(worker, most=3)
        first = await held(worker, made)
        second = asyncio.create_task(made.ask(["a", "b"]))
        await asyncio.sleep(0)
        with pytest.raises(TooManyWaitingError):
            await made.ask(["c", "d"])
        third = asyncio.create_task(made.ask(["c"]))
        worker.gate.set()
        assert await asyncio.gather(first, second, third) == [[5], [1, 1], [1]]
        assert await made.ask(["x", "y", "z"]) == [1, 1, 1], "the places are free again"
        await made.stop()

    asyncio.run(crowded())


def test_whom_the_client_has_left_is_not_computed() -> None:
    """Prevents an overloaded server from computing answers that nobody reads."""

    async def gone() -> None:
        worker = Worker()
        made = batcher(worker)
        first = await held(worker, made)
        left, stays = asyncio.create_task(made.ask(["left"])), asyncio.create_task(made.ask(["stays"]))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.sleep(0)
        worker.gate.set()
        assert await asyncio.gather(first, stays) == [[5], [5]]
        assert worker.batches == [["first"], ["stays"]]
        await made.stop()

    asyncio.run(gone())


def test_a_lone_client_waits_for_nobody() -> None:
    """Prevents the wait for a fuller batch from being added to each answer of one client."""

    async def alone() -> None:
        made = batcher(Worker(), wait=5.0)
        start = time.monotonic()
        for _ in range(3):
            await made.ask(["a"])
        assert time.monotonic() - start < 4
        await made.stop()

    asyncio.run(alone())


def test_stopping_waits_for_what_was_asked() -> None:
    """Prevents requests without an answer when the server ends."""

    async def stopped() -> None:
        worker = Worker()
        made = batcher(worker)
        first = await held(worker, made)
        second = asyncio.create_task(made.ask(["second"]))
        await asyncio.sleep(0)
        ending = asyncio.create_task(made.stop())
        await asyncio.sleep(0.05)
        assert not ending.done()
        worker.gate.set()
        await ending
        assert (await first, await second) == ([5], [6])

    asyncio.run(stopped())
