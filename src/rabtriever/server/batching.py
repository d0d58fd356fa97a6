"""Micro-batching: queries of concurrent requests are answered together, by one worker thread.

While the thread computes, further requests wait; what waits then is the next batch. So a lone client waits for nobody,
and many clients share one encoding and one scan.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, Protocol, TypeVar

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class TooManyWaitingError(Exception):
    """More is waiting than the server lets wait."""


class Observer(Protocol):
    """What is told of batches."""

    def batch(self, queries: int, seconds: float) -> None:
        """A batch of so many queries took so many seconds."""

    def waiting(self, queries: int) -> None:
        """So many queries wait."""


class _Request(NamedTuple, Generic[Asked, Answer]):
    queries: Sequence[Asked]
    future: asyncio.Future[list[Answer]]


class Batcher(Generic[Asked, Answer]):
    """Gathers queries into batches.

    Args:
        answer: from the queries of a batch to their answers; runs in the worker thread.
        size: most queries of a batch; a request with more is a batch of its own.
        wait_seconds: how long a batch waits for further queries where the one before had several requests.
        most_waiting: most queries that wait.
        observer: is told of batches.
    """

    def __init__(
        self,
        answer: Callable[[list[Asked]], list[Answer]],
        size: int,
        wait_seconds: float,
        most_waiting: int,
        observer: Observer | None = None,
    ) -> None:
        self._answer, self._size, self._wait, self._most = answer, size, wait_seconds, most_waiting
        self._observer = observer
        self._requests: deque[_Request[Asked, Answer]] = deque()
        self._waiting = 0
        self._busy = False  # a batch is being gathered or computed
        self._shared = False  # the batch before had several requests
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = ThreadPoolExecutor(1, "rabtriever-batch")

    async def ask(self, queries: Sequence[Asked]) -> list[Answer]:
        """The answers to some queries, which stay together in one batch.

        Raises:
            TooManyWaitingError: too many wait already.
        """
        if self._waiting + len(queries) > self._most:
            raise TooManyWaitingError
        request = _Request(queries, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._count(len(queries))
        if not self._busy:
            self._busy = True
            task = asyncio.create_task(self._work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await request.future

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Takes the place of one waiting query, for other jobs of the same request.

        Raises:
            TooManyWaitingError: too many wait already.
        """
        if self._waiting >= self._most:
            raise TooManyWaitingError
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    async def run(self, job: Callable[[], Result]) -> Result:
        """What another job of the worker thread gives; it waits for its turn, and batches wait for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    async def stop(self) -> None:
        """Waits until nothing is in progress, and ends the thread."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        self._thread.shutdown(wait=True)

    async def _work(self) -> None:
        try:
            while self._requests:
                if self._shared and self._waiting < self._size and self._wait:
                    await asyncio.sleep(self._wait)
                batch = self._gathered()
                self._shared = len(batch) > 1
                if batch:
                    await self._compute(batch)
        finally:
            self._busy = False

    def _gathered(self) -> list[_Request[Asked, Answer]]:
        """The next requests, of as many queries as a batch has, without those whose client has gone."""
        batch: list[_Request[Asked, Answer]] = []
        queries = 0
        while self._requests and (not batch or queries + len(self._requests[0].queries) <= self._size):
            request = self._requests.popleft()
            self._count(-len(request.queries))
            if not request.future.done():
                batch.append(request)
                queries += len(request.queries)
        return batch

    async def _compute(self, batch: list[_Request[Asked, Answer]]) -> None:
        queries = [query for request in batch for query in request.queries]
        try:
            answers = iter(await self.run(lambda: self._timed(queries)))
        except Exception as error:
            await self._failed(batch, error)
            return
        for request in batch:
            own = [next(answers) for _ in request.queries]
            if not request.future.done():
                request.future.set_result(own)

    async def _failed(self, batch: list[_Request[Asked, Answer]], error: Exception) -> None:
        """A batch that failed: each request is tried alone, so that one cannot fail the others."""
        if len(batch) > 1:
            for request in batch:
                await self._compute([request])
        elif not batch[0].future.done():
            batch[0].future.set_exception(error)

    def _timed(self, queries: list[Asked]) -> list[Answer]:
        start = time.perf_counter()
        answers = self._answer(queries)
        if self._observer is not None:
            self._observer.batch(len(queries), time.perf_counter() - start)
        return answers

    def _count(self, queries: int) -> None:
        self._waiting += queries
        if self._observer is not None:
            self._observer.waiting(self._waiting)
