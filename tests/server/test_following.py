"""The version in service follows the registry, and documents follow their store; failures leave what answers."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.data.beir_io import Document
from rabtriever.ops.lookup import Found
from rabtriever.search.live import Changes
from rabtriever.server import backend as module
from rabtriever.server import versions
from rabtriever.server.backend import Backend
from rabtriever.server.errors import ApiError
from rabtriever.server.schemas import RerankRequest, SearchRequest
from rabtriever.server.settings import ServeSettings
from rabtriever.server.versions import Wanted
from tests.server.fakes import FakeLive, FakeRegistry, FakeStore, backend

NEW = Document("d4", "Head torch", "light for both hands")


def figures(made: Backend) -> dict[str, float]:
    """Counters of the backend by name."""
    lines = [line for line in made.metrics.text().decode().splitlines() if line.startswith("rabtriever_")]
    return {line.rpartition(" ")[0].removeprefix("rabtriever_"): float(line.rpartition(" ")[2]) for line in lines}


async def asked(made: Backend, query: str) -> tuple[str | None, str]:
    """Version that answered, and the first document."""
    answer = await made.search(SearchRequest(query=query))
    return answer.version, answer.hits[0].id


def test_a_new_champion_takes_over() -> None:
    """Prevents a promotion that needs a restart, and one that loads the same version again and again."""

    async def promoted() -> None:
        registry = FakeRegistry()
        made = backend(registry, poll_seconds=0.05)
        await made.start()
        assert await asked(made, "tea") == ("1", "d1")
        registry.version = "2"
        while made.status().version == "1":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert await asked(made, "tea") == ("2", "d1") and registry.opened == ["1", "2"]
        found = figures(made)
        assert found["swaps_total"] == 1 and found["swap_failing"] == 0
        assert found['version_info{model="2abcdef01234",version="2"}'] == 1
        assert not [name for name in found if 'version="1"' in name], "of a version that has left"
        await made.stop()

    asyncio.run(asyncio.wait_for(promoted(), 30))


def test_a_version_that_does_not_load_leaves_the_old_one(caplog: pytest.LogCaptureFixture) -> None:
    """Prevents a broken promotion from ending the service, or from being found out by nobody."""
    caplog.set_level(logging.INFO, "rabtriever.server")

    async def broken() -> None:
        registry = FakeRegistry()
        registry.broken = {"2"}
        made = backend(registry)
        registry.version = "2"
        for _ in range(3):
            await made.refresh()
        assert await asked(made, "tea") == ("1", "d1")
        status = made.status()
        assert status.ready and status.version == "1" and status.failure is not None
        assert status.failure.model_dump() == {"version": "2", "reason": "OSError: version 2 has lost its files"}
        assert registry.opened == ["1", "2"], "not tried again at each look"
        found = figures(made)
        assert found["swap_failing"] == 1 and found["swap_failures_total"] == 1
        told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
        assert told == ["version 2 did not take over: OSError: version 2 has lost its files"]
        registry.version = "1"
        await made.refresh()
        assert made.status().failure is None and figures(made)["swap_failing"] == 0
        await made.stop()

    asyncio.run(broken())


def test_a_version_that_failed_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a disk that was away for a second from keeping a good version out of service."""
    monkeypatch.setattr(module, "_FIRST_RETRY", 0.0)

    async def repaired() -> None:
        registry = FakeRegistry()
        registry.broken = {"2"}
        made = backend(registry)
        registry.version = "2"
        await made.refresh()
        registry.broken = set()
        await made.refresh()
        assert made.status().version == "2" and made.status().failure is None
        await made.stop()

    asyncio.run(repaired())


def test_a_registry_that_is_away_changes_nothing() -> None:
    """Prevents a locked or unreachable registry from taking the service with it."""

    async def away() -> None:
        registry = FakeRegistry()
        made = backend(registry)
        registry.version = None
        await made.refresh()
        assert (await asked(made, "tea"))[0] == "1"
        failure = made.status().failure
        assert failure is not None and failure.version is None and "has no 'champion'" in failure.reason
        registry.version = "1"
        await made.refresh()
        assert made.status().failure is None and registry.opened == ["1"]
        await made.stop()

    asyncio.run(away())


def test_searches_go_on_while_a_version_loads() -> None:
    """Prevents seconds without answers at each promotion."""

    async def loading() -> None:
        registry, opened = FakeRegistry(), threading.Event()

        def slow(wanted: Wanted, changes: Changes) -> Any:
            if wanted.found.version == "2":
                assert opened.wait(30)
            return FakeRegistry.open(registry, wanted, changes)

        made = Backend(ServeSettings(), look=registry.look, load=slow)  # type: ignore[arg-type]
        made.load()
        registry.version = "2"
        swap = asyncio.create_task(made.refresh())
        for _ in range(20):
            assert await asked(made, "tea") == ("1", "d1")
        assert not swap.done()
        opened.set()
        await swap
        assert await asked(made, "tea") == ("2", "d1")
        await made.stop()

    asyncio.run(loading())


def test_documents_stay_over_a_new_version() -> None:
    """Prevents a promotion from losing what was added, before it or while it loaded."""

    async def kept() -> None:
        registry, store, loading, loaded = FakeRegistry(), FakeStore(), threading.Event(), threading.Event()

        def slow(wanted: Wanted, changes: Changes) -> Any:
            live = FakeRegistry.open(registry, wanted, changes)
            if wanted.found.version == "2":
                loading.set()
                assert loaded.wait(30)
            return live

        made = Backend(ServeSettings(), store, look=registry.look, load=slow)  # type: ignore[arg-type]
        made.load()
        await made.put([NEW])
        registry.version = "2"
        swap = asyncio.create_task(made.refresh())
        await asyncio.to_thread(loading.wait, 30)
        await made.put([Document("d5", "", "late")])
        await made.remove("d1")
        loaded.set()
        await swap
        assert made.live.version == "2" and {one.doc_id for one in made.live.documents} == {"d2", "d3", "d4", "d5"}
        await made.stop()

    asyncio.run(kept())


def test_changes_of_another_process_are_seen() -> None:
    """Prevents `rabtriever add` beside a running server from having no effect."""

    async def foreign() -> None:
        store = FakeStore()
        made = backend(store=store)
        store.put([NEW])
        store.remove("d1")
        assert (await asked(made, "both hands"))[1] == "d1"
        await made.refresh()
        assert (await asked(made, "both hands"))[1] == "d4" and len(made.live) == 3
        before, reads = made.live, store.reads
        await made.refresh()
        assert made.live is before and store.reads == reads, "nothing is read or encoded again"
        await made.put([Document("d5", "", "own")])
        await made.refresh()
        assert store.reads == reads, "of what this process has stored"
        await made.stop()

    asyncio.run(foreign())


def test_a_store_that_cannot_be_read_is_told() -> None:
    """Prevents changed documents from staying away without a word, and a message at each look."""

    class Locked(FakeStore):
        locked = False

        @property
        def version(self) -> int:
            if self.locked:
                raise ConnectionError("the changed documents failed")
            return 0

        @version.setter
        def version(self, value: int) -> None:
            pass

    async def locked() -> None:
        store = Locked()
        made = backend(store=store)
        store.locked = True
        for _ in range(2):
            await made.refresh()
        status = made.status()
        assert status.ready and status.failure is not None and "documents failed" in status.failure.reason
        store.locked = False
        await made.refresh()
        assert made.status().failure is None
        await made.stop()

    asyncio.run(locked())


def test_a_put_is_stored_before_it_is_answered() -> None:
    """Prevents a document that searches find and the next start has forgotten."""

    class Full(FakeStore):
        def put(self, documents: Any) -> int:
            raise ConnectionError("the disk is full")

    async def full() -> None:
        made = backend(store=Full())
        with pytest.raises(ApiError, match="the disk is full; nothing was changed") as told:
            await made.put([NEW])
        assert told.value.status == 503 and len(made.live) == 3
        await made.stop()

    asyncio.run(full())


def test_a_slow_answer_is_a_timeout() -> None:
    """Prevents a client that waits for ever."""

    async def slow() -> None:
        made = backend(FakeRegistry(delay=0.3), timeout_seconds=0.05)
        for ask in (
            made.search(SearchRequest(query="tea")),
            made.rerank(RerankRequest(query="tea", documents=["a", {"id": "d1"}])),
        ):
            with pytest.raises(ApiError, match="no answer within 0.05 seconds") as told:
                await ask
            assert told.value.status == 504
        await made.stop()

    asyncio.run(slow())


def test_too_many_queries_are_refused() -> None:
    """Prevents a queue that grows until memory ends."""

    async def crowded() -> None:
        made = backend(FakeRegistry(delay=0.05), queries=2, max_waiting=2, batch_queries=1)
        requests = [made.search(SearchRequest(query="tea")) for _ in range(8)]
        answers = await asyncio.gather(*requests, return_exceptions=True)
        refused = [one for one in answers if isinstance(one, ApiError)]
        assert refused and len(refused) < 8 and all(one.status == 429 for one in refused)
        assert refused[0].headers == {"Retry-After": "1"}
        reranked = [made.rerank(RerankRequest(query="tea", documents=[{"id": "d1"}])) for _ in range(8)]
        answers = await asyncio.gather(*reranked, return_exceptions=True)
        assert [getattr(one, "status", 200) for one in answers] == [200, 200] + [429] * 6
        assert (await asked(made, "tea"))[1] == "d1", "the places are free again"
        await made.stop()

    asyncio.run(crowded())


def test_nothing_is_answered_before_a_version_is_loaded() -> None:
    """Prevents an AttributeError, and a readiness that is told too early."""

    async def early() -> None:
        registry = FakeRegistry()
        made = Backend(ServeSettings(), look=registry.look, load=registry.open)  # type: ignore[arg-type]
        assert not made.status().ready
        with pytest.raises(ApiError, match="no version is in service yet") as told:
            await made.search(SearchRequest(query="tea"))
        assert told.value.status == 503
        await made.start()
        assert made.status().ready
        await made.stop()

    asyncio.run(early())


def test_the_first_version_must_load() -> None:
    """Prevents a server that starts and answers nothing."""
    registry = FakeRegistry()
    registry.broken = {"1"}
    with pytest.raises(OSError, match="version 1 has lost its files"):
        backend(registry)


def test_a_version_is_asked_before_it_takes_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents a version that loads and gives no scores from replacing one that does."""
    from rabtriever.search import retriever

    class Silent(FakeLive):
        def _ranked(self, query: Any) -> Any:
            return [hit._replace(score=math.nan) for hit in super()._ranked(query)]

    loaded: list[Path] = []
    plain = SimpleNamespace(load=lambda folder: loaded.append(folder) or SimpleNamespace())
    monkeypatch.setattr(retriever, "Retriever", plain)
    monkeypatch.setattr(versions.LiveRetriever, "of", classmethod(lambda cls, base, changes: Silent()))
    with pytest.raises(ArtifactMismatchError, match="answers with the score nan"):
        versions.open_version(Wanted(Found(tmp_path, "2"), "0"), {})
    assert loaded == [tmp_path]
