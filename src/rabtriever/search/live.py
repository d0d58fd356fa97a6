"""Stand-in: a retriever with the interface of one whose documents change; it has no changes and no filter yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from rabtriever.core.artifacts import Manifest
from rabtriever.data.beir_io import Document
from rabtriever.search.calibration import Calibration
from rabtriever.search.explanation import Explanation
from rabtriever.search.retriever import Hit, Retriever


class Filter(NamedTuple):
    """Which documents may be found."""

    ids: frozenset[str] | None = None
    fields: Mapping[str, tuple[Any, ...]] = {}


class Query(NamedTuple):
    """A query, and how many documents are wanted."""

    text: str
    k: int = 10
    filter: Filter | None = None


class LiveRetriever:
    """A retriever."""

    def __init__(self, base: Retriever) -> None:
        self._base = base

    @classmethod
    def of(cls, base: Retriever, changes: Mapping[str, Document | None] = {}) -> Self:
        """The retriever itself."""
        return cls(base)

    def changed(self, changes: Mapping[str, Document | None]) -> Self:
        """The retriever itself."""
        return self

    def __len__(self) -> int:
        return len(self._base)

    @property
    def documents(self) -> Sequence[Document]:
        """Its documents."""
        return self._base.documents

    @property
    def version(self) -> str | None:
        """Its version."""
        return self._base.version

    @property
    def manifest(self) -> Manifest | None:
        """Its manifest."""
        return self._base.manifest

    @property
    def calibration(self) -> Calibration | None:
        """Its calibration."""
        return getattr(self._base, "calibration", None)

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of each query."""
        found = self._base.search([query.text for query in queries], max(query.k for query in queries))
        return [hits[: query.k] for query, hits in zip(queries, found, strict=True)]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The scores of texts."""
        corpus = {str(number): Document(str(number), "", text) for number, text in enumerate(texts)}
        hits = self._base.reindexed(corpus).search(query, len(texts))
        scores = {hit.doc_id: hit.score for hit in hits}
        return [scores[str(number)] for number in range(len(texts))]

    def document(self, doc_id: str) -> Document:
        """A document."""
        return self._base.documents[self._base._row(doc_id)]

    def explain(self, query: str, doc_id: str) -> Explanation:
        """The parts of a score."""
        return self._base.explain(query, doc_id)
