"""The retriever in service: answers queries, takes changes of documents, and follows the registry."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, TypeVar

from rabtriever.data.beir_io import Document
from rabtriever.search.live import LiveRetriever, Query
from rabtriever.search.retriever import Hit
from rabtriever.server import limits, schemas
from rabtriever.server.answers import (
    Reranked,
    as_filter,
    model_of,
    plain,
    rerank_response,
    search_result,
    text_of,
)
from rabtriever.server.batching import Batcher, TooManyWaitingError
from rabtriever.server.errors import ApiError, in_ascii
from rabtriever.server.metrics import Metrics
from rabtriever.server.settings import ServeSettings
from rabtriever.server.versions import Changes, Kept, Store, Wanted, difference, look_up, open_version

Result = TypeVar("Result")
log = logging.getLogger("rabtriever.server")
RERANK_PIECE = 64  # texts that are scored at once, so that queries get their turn in between
_FIRST_RETRY, _LAST_RETRY = 30.0, 600.0  # seconds until a version that did not load is tried again


class Found(NamedTuple):
    """What was found for one query, and the retriever that found it."""

    live: LiveRetriever
    hits: list[Hit]


class Backend:
    """What all doors (HTTP, MCP, the page) ask.

    Args:
        settings: of the server.
        store: where changes of documents are kept; None where documents cannot be changed.
        metrics: counters.
        look: says what should be in service.
        load: opens it.

    Attributes:
        settings, metrics: as given.
    """

    def __init__(
        self,
        settings: ServeSettings,
        store: Store | None = None,
        metrics: Metrics | None = None,
        look: Callable[[str], Wanted] = look_up,
        load: Callable[[Wanted, Changes], LiveRetriever] = open_version,
    ) -> None:
        self.settings, self.metrics = settings, metrics or Metrics()
        self._store, self._look, self._open = store, look, load
        self._live: LiveRetriever | None = None
        self._wanted: Wanted | None = None  # what is in service
        self._seen, self._changes = Kept(0, {})  # what lies over it
        self._failure: schemas.Failure | None = None
        self._refused: tuple[str, float, float] | None = None  # hash, time to try again, seconds until then
        self._change = asyncio.Lock()
        self._watch: asyncio.Task[None] | None = None
        self._batcher: Batcher[Query, Found] = Batcher(
            self._find, settings.batch_queries, settings.batch_wait_ms / 1000, settings.max_waiting, self.metrics
        )

    # in service

    @property
    def live(self) -> LiveRetriever:
        """The retriever in service; take it once for all that belongs together.

        Raises:
            ApiError: 503, none is loaded yet.
        """
        if self._live is None:
            raise ApiError(503, "no version is in service yet; ask again soon", {"Retry-After": "5"})
        return self._live

    def load(self) -> None:
        """Opens what should be in service; before `start`, which does it where it was not done.

        Raises:
            FileNotFoundError, ValueError, ArtifactMismatchError, ModuleNotFoundError: there is no such version, or it
                does not load.
        """
        wanted = self._look(self.settings.model)
        kept = self._read_changes()
        self._take(self._open(wanted, kept.changes), wanted, kept)

    async def start(self) -> None:
        """Loads, unless that was done, and follows the registry and the documents from now on."""
        if self._live is None:
            await asyncio.to_thread(self.load)
        self._watch = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Ends after what is in progress."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        async with self._change:
            await self._batcher.stop()

    def status(self) -> schemas.Status:
        """What the server is doing, as /readyz tells it."""
        live = self._live
        if live is None:
            return schemas.Status(ready=False, version=None, model=None, documents=0, failure=self._failure)
        return schemas.Status(
            ready=True, version=live.version, model=model_of(live), documents=len(live), failure=self._failure
        )

    # asking

    async def search(self, request: schemas.SearchRequest) -> schemas.SearchResponse:
        """The documents for one query or several.

        Raises:
            ApiError: a limit is passed (422), too many queries wait (429), it took too long (504), or there is no
                version in service (503).
        """
        texts = limits.check_search(request, self.settings)
        allowed = as_filter(request.filter)
        found = await self.find([Query(text, request.k, allowed) for text in texts])
        results = [self._counted(search_result(*one, request.threshold)) for one in found]
        return results[0] if request.query is not None else schemas.SearchResults(results=results)

    async def find(self, queries: Sequence[Query]) -> list[Found]:
        """The hits of some queries, answered together with those of other requests.

        Raises:
            ApiError: as of `search`.
        """
        self.live  # noqa: B018 - before anything waits
        async with self._admitted():
            return await self._batcher.ask(queries)

    async def rerank(self, request: schemas.RerankRequest, request_id: str = "") -> schemas.RerankResponse:
        """Texts, or documents of the corpus, by their relevance for a query.

        A document of the corpus has the score that a search gives it, which its text alone may not have.

        Raises:
            ApiError: a limit is passed or an id is unknown (422), too much is waiting (429), it took too long (504), or
                there is no version in service (503).
        """
        limits.check_rerank(request, self.settings)
        live = self.live
        texts = [text_of(document, live) for document in request.documents]
        async with self._admitted():
            with self._batcher.place():
                scores = await self._scores(live, request.query, request.documents)
        return rerank_response(live, request, texts, scores, request_id)

    async def run(self, job: Callable[[], Result]) -> Result:
        """What another job gives, run by the thread that answers queries.

        Raises:
            ApiError: 429, too much is waiting; 504, it took too long, and the job itself goes on.
        """
        async with self._admitted():
            with self._batcher.place():
                return await self._batcher.run(job)

    # changing documents

    async def put(self, documents: Sequence[Document]) -> schemas.ChangeResponse:
        """Adds or replaces documents; they are durable, and found by every later search, when this returns.

        Raises:
            ApiError: 503, the server keeps no changes, or has no version in service.
        """
        store = self._kept()
        changes: Changes = {document.doc_id: document for document in documents}
        return await asyncio.shield(self._changed(changes, functools.partial(store.put, documents)))

    async def remove(self, doc_id: str) -> schemas.ChangeResponse:
        """Removes a document; as `put`.

        Raises:
            ApiError: 404, there is no such document; 503 as of `put`.
        """
        store = self._kept()
        try:
            self.live.document(doc_id)
        except ValueError as error:
            raise ApiError(404, in_ascii(error)) from error
        return await asyncio.shield(self._changed({doc_id: None}, functools.partial(store.remove, doc_id)))

    async def _changed(self, changes: Changes, keep: Callable[[], int]) -> schemas.ChangeResponse:
        """Encodes, keeps, and only then takes over, so that what fails changes nothing."""
        async with self._change:
            live = await asyncio.to_thread(self.live.changed, changes)
            try:
                kept = await asyncio.to_thread(keep)
            except OSError as error:
                raise ApiError(503, f"{in_ascii(error)}; nothing was changed", {"Retry-After": "5"}) from error
            if kept == self._seen + 1:  # else another process has changed something as well, which `refresh` reads
                self._seen = kept
            self._lay(live, changes)
        return schemas.ChangeResponse(changed=len(changes), documents=len(live), version=live.version)

    def _lay(self, live: LiveRetriever, changes: Changes) -> None:
        """Changed documents take over; searches that run keep the retriever they began with."""
        self._live, self._changes = live, {**self._changes, **changes}
        self.metrics.in_service(live.version, model_of(live), len(live), swapped=False)

    def _kept(self) -> Store:
        self.live  # noqa: B018 - without one there is nothing to change
        if self._store is None:
            raise ApiError(503, "this server keeps no changes of documents; start it with --documents FILE")
        return self._store

    def _read_changes(self) -> Kept:
        """The changes that are kept; the version is read first, so that a later change is read again."""
        if self._store is None:
            return Kept(0, {})
        return Kept(self._store.version, self._store.changes())

    # following the registry

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self.settings.poll_seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Looks at the registry and the documents once, and takes over what has changed; failures are not raised."""
        wanted: Wanted | None = None
        try:
            wanted = await asyncio.to_thread(self._look, self.settings.model)
            if self._is_new(wanted):
                await self._swap(wanted)
            await self._follow_documents()
            self._all_is_well(wanted)
        except Exception as error:  # whatever it is, the version in service goes on
            self._failed(wanted, error)

    def _is_new(self, wanted: Wanted) -> bool:
        return self._wanted is None or (wanted.hash, wanted.found.version) != (
            self._wanted.hash,
            self._wanted.found.version,
        )

    def _all_is_well(self, wanted: Wanted) -> None:
        if self._failure is not None and not self._is_new(wanted):
            log.info("version %s is in service, as it should be", wanted.found.version)
            self._failure, self._refused = None, None
            self.metrics.failure(False)

    async def _swap(self, wanted: Wanted) -> None:
        """Opens a version beside the one in service, and lets it take over."""
        if self._refused is not None and self._refused[0] == wanted.hash and time.monotonic() < self._refused[1]:
            return
        before = await asyncio.to_thread(self._read_changes)
        live = await asyncio.to_thread(self._open, wanted, before.changes)
        async with self._change:  # documents that came while it loaded
            kept = await asyncio.to_thread(self._read_changes)
            late = difference(before.changes, kept.changes)
            live = await asyncio.to_thread(live.changed, late) if late else live
            self._take(live, wanted, kept)

    def _take(self, live: LiveRetriever, wanted: Wanted, kept: Kept) -> None:
        swapped = self._live is not None
        self._live, self._wanted = live, wanted
        self._seen, self._changes = kept
        self.metrics.in_service(live.version, model_of(live), len(live), swapped)
        if wanted.found.note:
            log.warning(wanted.found.note)
        log.info("version %s (%s) is in service with %s documents", live.version, model_of(live), f"{len(live):,}")

    def _failed(self, wanted: Wanted | None, error: Exception) -> None:
        version = wanted.found.version if wanted is not None else None
        failure = schemas.Failure(version=version, reason=f"{type(error).__name__}: {error}")
        if wanted is not None and self._is_new(wanted):
            before = self._refused
            again = min(2 * before[2], _LAST_RETRY) if before and before[0] == wanted.hash else _FIRST_RETRY
            self._refused = (wanted.hash, time.monotonic() + again, again)
        if failure != self._failure:
            log.error("version %s did not take over: %s", version, failure.reason)
        self._failure = failure
        self.metrics.failure(True)

    async def _follow_documents(self) -> None:
        """Takes over what another process has stored."""
        if self._store is None:
            return
        async with self._change:
            if await asyncio.to_thread(lambda: self._store.version) == self._seen:
                return
            kept = await asyncio.to_thread(self._read_changes)
            changes = difference(self._changes, kept.changes)
            live = await asyncio.to_thread(self.live.changed, changes)
            self._seen = kept.version
            self._lay(live, changes)

    # answering

    def _counted(self, result: schemas.SearchResult) -> schemas.SearchResult:
        self.metrics.answered(result.low_confidence)
        return result

    def _find(self, queries: list[Query]) -> list[Found]:
        live = self.live
        return [Found(live, hits) for hits in live.search(queries)]

    async def _scores(self, live: LiveRetriever, query: str, documents: Sequence[Reranked]) -> list[float]:
        """Scores of documents, in their order; a few at once, so that queries get their turn."""
        ids = [document.id for document in documents if isinstance(document, schemas.RerankId)]
        known = iter(await self._batcher.run(functools.partial(live.score_documents, query, ids)) if ids else [])
        texts = [plain(document) for document in documents if not isinstance(document, schemas.RerankId)]
        scores: list[float] = []
        for start in range(0, len(texts), RERANK_PIECE):
            piece = texts[start : start + RERANK_PIECE]
            scores += await self._batcher.run(functools.partial(live.score, query, piece))
        other = iter(scores)
        return [next(known if isinstance(one, schemas.RerankId) else other) for one in documents]

    @contextlib.asynccontextmanager
    async def _admitted(self) -> AsyncIterator[None]:
        """Tells a client when there is no place for its request, and when there was no answer in time."""
        settings = self.settings
        try:
            async with asyncio.timeout(settings.timeout_seconds):
                yield
        except TooManyWaitingError:
            message = f"{settings.max_waiting} queries are waiting, expected fewer; ask again in a second"
            raise ApiError(429, message, {"Retry-After": "1"}) from None
        except TimeoutError:
            message = f"no answer within {settings.timeout_seconds:g} seconds; ask for less, or again later"
            raise ApiError(504, message) from None
