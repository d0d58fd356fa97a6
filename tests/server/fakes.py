"""A retriever, a store and a registry in memory, so that the server is tested without a model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rabtriever.data.documents import Document
from rabtriever.ops.lookup import Found
from rabtriever.search.calibration import Calibration
from rabtriever.search.live import Changes, Query
from rabtriever.search.retriever import Hit
from rabtriever.server.backend import Backend
from rabtriever.server.settings import ServeSettings
from rabtriever.server.versions import Wanted

DOCUMENTS = {
    "d1": Document("d1", "Kettle", "boils water for tea"),
    "d2": Document("d2", "Torch", "gives light in the dark"),
    "d3": Document("d3", "", "sweeps crumbs and dust"),
}
CALIBRATION = Calibration(2.0, -1.0, 0.5, 0.9)  # one word in common is right at 0.73, none at 0.27


def words_in_common(query: str, text: str) -> float:
    """The score of the fake: higher is better."""
    return float(len(set(query.lower().split()) & set(text.lower().split())))


@dataclass(frozen=True)
class FakeLive:
    """Has the interface of a LiveRetriever.

    Attributes:
        version, manifest, calibration: as of the real one.
        corpus: documents by id.
        delay: seconds that a search takes.
        calls: how many queries each call of `search` had.
    """

    version: str | None = "1"
    corpus: Mapping[str, Document] = field(default_factory=lambda: dict(DOCUMENTS))
    calibration: Calibration | None = CALIBRATION
    delay: float = 0.0
    calls: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(hash=f"{self.version}abcdef0123456789")

    @property
    def documents(self) -> Sequence[Document]:
        return tuple(self.corpus.values())

    def __len__(self) -> int:
        return len(self.corpus)

    def changed(self, changes: Changes) -> FakeLive:
        corpus = {**self.corpus, **changes}
        return replace(self, corpus={name: document for name, document in corpus.items() if document is not None})

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        self.calls.append(len(queries))
        time.sleep(self.delay)
        return [self._ranked(query) for query in queries]

    def _ranked(self, query: Query) -> list[Hit]:
        if query.text == "poison":
            raise RuntimeError("a query that the model cannot take")
        allowed = None if query.filter is None else query.filter.ids
        found = [one for one in self.corpus.values() if allowed is None or one.doc_id in allowed]
        hits = [Hit.of(one, words_in_common(query.text, one.contents)) for one in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.doc_id))[: query.k]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        self.scored.append(len(texts))
        return [words_in_common(query, text) for text in texts]

    def score_documents(self, query: str, doc_ids: Sequence[str]) -> list[float]:
        time.sleep(self.delay)
        return [words_in_common(query, self.document(doc_id).contents) for doc_id in doc_ids]

    def document(self, doc_id: str) -> Document:
        if doc_id not in self.corpus:
            raise ValueError(f"no document is {doc_id!r}, expected one of the {len(self)} in the retriever")
        return self.corpus[doc_id]


class FakeStore:
    """Keeps changes in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, Document | None] = {}
        self.version = 0
        self.reads = 0

    def put(self, documents: Sequence[Document]) -> int:
        return self._keep({document.doc_id: document for document in documents})

    def remove(self, doc_id: str) -> int:
        return self._keep({doc_id: None})

    def _keep(self, changes: Mapping[str, Document | None]) -> int:
        self.kept |= changes
        self.version += 1
        return self.version

    def changes(self) -> dict[str, Document | None]:
        self.reads += 1
        return dict(self.kept)


class FakeRegistry:
    """Says which version should be in service, and opens it.

    Attributes:
        version: what is wanted.
        broken: versions that do not load.
        opened: versions that were opened, or tried.
        live: settings of the retrievers that are opened.
    """

    def __init__(self, **live: Any) -> None:
        self.version: str | None = "1"
        self.broken: set[str | None] = set()
        self.opened: list[str | None] = []
        self.live = live

    def look(self, name: str) -> Wanted:
        if self.version is None:
            raise ValueError(f"the registry has no {name!r}")
        return Wanted(Found(Path("unused"), self.version), f"{self.version}abcdef0123456789")

    def open(self, wanted: Wanted, changes: Changes) -> FakeLive:
        version = wanted.found.version
        self.opened.append(version)
        if version in self.broken:
            raise OSError(f"version {version} has lost its files")
        return FakeLive(version, **self.live).changed(changes)


def backend(registry: FakeRegistry | None = None, store: FakeStore | None = None, **settings: Any) -> Backend:
    """A backend that has loaded what the registry says."""
    registry = registry or FakeRegistry()
    made = Backend(ServeSettings(**settings), store, look=registry.look, load=registry.open)  # type: ignore[arg-type]
    made.load()
    return made
