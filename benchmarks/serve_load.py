"""A client on loopback that keeps a number of connections busy, and what it has seen."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

OK = 200


@dataclass
class Seen:
    """What became of the requests of one load.

    Attributes:
        seconds: that the load took.
        latencies: seconds of each answered request.
        failures: what went wrong with the others, by its words.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def row(self) -> dict[str, float]:
        """Requests a second, milliseconds at three quantiles, and the number of failed requests."""
        cuts = np.percentile(self.latencies, (50, 95, 99)) * 1000 if self.latencies else (float("nan"),) * 3
        named = {name: round(float(cut), 2) for name, cut in zip(("p50", "p95", "p99"), cuts, strict=True)}
        per_second = round(len(self.latencies) / self.seconds, 1)
        return {"requests_per_second": per_second, **named, "failed": sum(self.failures.values())}


def load(url: str, bodies: list[dict[str, Any]], connections: int, seconds: float) -> Seen:
    """Sends the bodies in turn over so many connections, each waiting for its answer, for some seconds."""
    return asyncio.run(loaded(url, bodies, connections, seconds))


async def loaded(url: str, bodies: list[dict[str, Any]], connections: int, seconds: float) -> Seen:
    """As `load`, inside a running loop."""
    seen, turn = Seen(), itertools.cycle(bodies)
    limits = aiohttp.TCPConnector(limit=connections)
    async with aiohttp.ClientSession(connector=limits, timeout=aiohttp.ClientTimeout(60)) as session:
        start = time.perf_counter()
        workers = (_work(session, url, turn, start + seconds, seen) for _ in range(connections))
        await asyncio.gather(*workers)
        seen.seconds = time.perf_counter() - start
    return seen


async def _work(
    session: aiohttp.ClientSession, url: str, bodies: Iterator[dict[str, Any]], end: float, seen: Seen
) -> None:
    while (start := time.perf_counter()) < end:
        try:
            async with session.post(url, json=next(bodies)) as answer:
                content = await answer.read()
            fault = None if answer.status == OK else f"{answer.status}: {content[:200]!r}"
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = f"{type(error).__name__}: {error}"
        if fault is None:
            seen.latencies.append(time.perf_counter() - start)
        else:
            seen.failures[fault] = seen.failures.get(fault, 0) + 1


async def meanwhile(seconds: float, actions: list[tuple[float, Callable[[], Awaitable[None]]]]) -> None:
    """Does each action at its share (0 to 1) of some seconds."""
    start = time.perf_counter()
    for share, action in sorted(actions, key=lambda pair: pair[0]):
        await asyncio.sleep(max(0.0, start + share * seconds - time.perf_counter()))
        await action()
