"""A retriever whose documents change while it is in service: added, replaced and removed, without an index built anew.

The base stays as it was loaded. What was put since is encoded alone, folded, and scanned beside it; what was removed or
replaced is masked. So a change costs the encoding of what was put, and answers are those of a retriever that was
indexed over the changed corpus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

import numpy as np
import torch

from rabtriever.core.artifacts import Manifest
from rabtriever.data.documents import Document
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.search.calibration import Calibration
from rabtriever.search.corpus_rows import is_equal, rows_of, unknown_document
from rabtriever.search.explanation import Explanation
from rabtriever.search.filters import Filter, FilterIndex
from rabtriever.search.ranking import Ranking, ranking
from rabtriever.search.retriever import SCORE_CELLS, Hit, Retriever
from rabtriever.search.texts import check_query, one_text

__all__ = ["Changes", "Filter", "LiveRetriever", "Query"]

Changes = Mapping[str, Document | None]


class Query(NamedTuple):
    """One question.

    Attributes:
        text: What is wanted.
        k: Documents wanted.
        filter: The documents that may be found; None for any.
    """

    text: str
    k: int = 10
    filter: Filter | None = None


class _Documents(NamedTuple):
    """Documents, their rows by id, and what a filter looks them up in."""

    documents: tuple[Document, ...]
    rows: Mapping[str, int]
    index: FilterIndex

    @classmethod
    def of(cls, documents: Sequence[Document]) -> Self:
        documents, rows = tuple(documents), rows_of(documents)
        return cls(documents, rows, FilterIndex(documents, rows))


class LiveRetriever:
    """A retriever and the changes that lie over its corpus. Never changes itself: `changed` gives another one.

    Attributes:
        changes: Documents that were put, by id; None for one that was removed. A change that makes no difference to
            the base is not among them.
    """

    def __init__(self, base: Retriever, known: _Documents, added: _Documents, folded: FoldedDocuments | None) -> None:
        self._base, self._known = base, known
        self._added, self._folded = added, folded
        self._kept: np.ndarray | None = None  # (N,) rows of the base that are neither removed nor replaced
        self.changes: Changes = {}

    @classmethod
    def of(cls, base: Retriever, changes: Changes | None = None) -> Self:
        """A retriever with changes over its corpus; encodes what was put.

        Args:
            base: The retriever as it was loaded.
            changes: Documents to add or to replace by id, None for one to remove.

        Raises:
            ValueError: As of `changed`.
        """
        return cls(base, _Documents.of(base.documents), _Documents.of(()), None).changed(changes or {})

    def changed(self, changes: Changes) -> Self:
        """A retriever with further changes, which shares the base with this one; encodes only what was put.

        To put what the base has, and to remove what it lacks, takes an earlier change back.

        Args:
            changes: Documents to add or to replace by id, None for one to remove.

        Raises:
            ValueError: A document is put under another id than its own, or its text cannot be encoded.
        """
        for doc_id, document in changes.items():
            if document is not None and document.doc_id != doc_id:
                raise ValueError(f"document {document.doc_id!r} is put as {doc_id!r}; put it under its own id")
        merged = {**self.changes, **changes}
        merged = {doc_id: one for doc_id, one in merged.items() if self._differs(doc_id, one)}
        added = _Documents.of([document for document in merged.values() if document is not None])
        made = type(self)(self._base, self._known, added, self._fold(added.documents))
        made.changes = merged
        if masked := [self._known.rows[doc_id] for doc_id in merged if doc_id in self._known.rows]:
            made._kept = np.ones(len(self._known.documents), dtype=bool)
            made._kept[masked] = False
        return made

    def _differs(self, doc_id: str, document: Document | None) -> bool:
        """Whether a change makes a difference to the base."""
        row = self._known.rows.get(doc_id)
        if row is None or document is None:
            return (row is None) != (document is None)
        return not is_equal(self._known.documents[row], document)

    def _fold(self, documents: Sequence[Document]) -> FoldedDocuments | None:
        """The index's view of documents that were put; those that are folded here already are not encoded again."""
        if not documents:
            return None
        here = [self._folded_row(one) for one in documents]
        fresh = [one for one, row in zip(documents, here, strict=True) if row is None]
        pool = [] if self._folded is None else [self._folded]
        if fresh:
            pool.append(self._base.fold_texts([one.contents for one in fresh]))
        places = iter(range(len(self._added.documents), len(self._added.documents) + len(fresh)))
        rows = torch.tensor([next(places) if row is None else row for row in here])
        return FoldedDocuments(*(torch.cat(parts)[rows] for parts in zip(*pool, strict=True)))

    def _folded_row(self, document: Document) -> int | None:
        """The row of a document that was put before with the same contents."""
        row = self._added.rows.get(document.doc_id)
        if row is None or self._added.documents[row].contents != document.contents:
            return None
        return row

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The best documents of each query, best first; fewer than k where fewer are allowed.

        Queries are encoded together, and the documents are scanned once for all of them.

        Raises:
            TypeError: The text of a query is not one text, or the values of a filter's field are.
            ValueError: A query is blank or not Unicode text, or its k is below 1.
        """
        for number, query in enumerate(queries):
            check_query(one_text(query.text, f"query {number}"), f"query {number}")
            if query.k < 1:
                raise ValueError(f"k of query {number} is {query.k}; ask for at least one document")
        size = max(1, SCORE_CELLS // (len(self._known.documents) + len(self._added.documents)))
        hits: list[list[Hit]] = []
        for start in range(0, len(queries), size):
            hits += self._search(queries[start : start + size])
        return hits

    def _search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        states, wanted = self._base.encode([query.text for query in queries]), [query.k for query in queries]
        found = self._base.top(states, wanted, self._allowed(queries, self._known.index, self._kept))
        if self._folded is None:
            return [self._hits(one, None, query.k) for one, query in zip(found, queries, strict=True)]
        scores = self._base.scores(states, self._folded)
        allowed = self._allowed(queries, self._added.index, None)
        added = [ranking(*one) for one in zip(scores, wanted, allowed, strict=True)]
        return [self._hits(*one) for one in zip(found, added, wanted, strict=True)]

    def _allowed(
        self, queries: Sequence[Query], index: FilterIndex, kept: np.ndarray | None
    ) -> list[np.ndarray | None]:
        """For each query the documents that may be found; None for all."""
        masks: dict[int, np.ndarray | None] = {id(None): kept}
        for query in queries:
            if id(query.filter) not in masks:
                mask = index.allowed(query.filter)
                masks[id(query.filter)] = mask if kept is None else mask & kept
        return [masks[id(query.filter)] for query in queries]

    def _hits(self, found: Ranking, added: Ranking | None, k: int) -> list[Hit]:
        """The k best of two rankings, of the base and of what was put."""
        documents, scores = [self._known.documents[row] for row in found.rows], found.scores
        if added is not None:
            documents += [self._added.documents[row] for row in added.rows]
            scores = np.concatenate([scores, added.scores])
        return [Hit.of(documents[place], scores[place]) for place in np.argsort(-scores, kind="stable")[:k]]

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The raw scores of any texts for one query; see `Retriever.score`.

        Raises:
            TypeError, ValueError: As of `Retriever.score`.
        """
        return self._base.score(query, texts)

    def score_documents(self, query: str, doc_ids: Sequence[str]) -> list[float]:
        """The scores of documents of the corpus for one query: those that `search` gives, with nothing encoded.

        Raises:
            TypeError: The query is not one text.
            ValueError: The query is blank, or the corpus has no such document.
        """
        check_query(one_text(query, "query"), "the query")
        if not doc_ids:
            return []
        parts = [self._folded_document(doc_id) for doc_id in doc_ids]
        folded = FoldedDocuments(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        return self._base.scores(self._base.encode([query]), folded)[0].tolist()

    def explain(self, query: str, doc_id: str) -> Explanation:
        """The parts of the score of one document for one query; see `Retriever.explain`.

        Raises:
            TypeError: The query is not one text.
            ValueError: The query is blank, or the corpus has no such document.
        """
        check_query(one_text(query, "query"), "the query")
        return self._base.explain_folded(query, doc_id, self._folded_document(doc_id))

    def document(self, doc_id: str) -> Document:
        """The document of an id.

        Raises:
            TypeError: The id is not one text.
            ValueError: The corpus has no such document; says which may have been meant.
        """
        added, row = self._place(doc_id)
        return (self._added if added else self._known).documents[row]

    def _folded_document(self, doc_id: str) -> FoldedDocuments:
        """The index's view of one document."""
        added, row = self._place(doc_id)
        if not added:
            return self._base.folded([row])
        return FoldedDocuments(*(tensor[row : row + 1] for tensor in self._folded))

    def _place(self, doc_id: str) -> tuple[bool, int]:
        """Whether a document was put, and its row among those that were or those of the base."""
        if one_text(doc_id, "doc_id") in self._added.rows:
            return True, self._added.rows[doc_id]
        if doc_id in self.changes or doc_id not in self._known.rows:
            raise unknown_document(doc_id, rows_of(self.documents))
        return False, self._known.rows[doc_id]

    @property
    def documents(self) -> Sequence[Document]:
        """The documents: those of the base in its order, replaced where they were, then those that were added."""
        changes = self.changes
        found = [changes.get(one.doc_id, one) for one in self._known.documents]
        found += [one for one in self._added.documents if one.doc_id not in self._known.rows]
        return tuple(one for one in found if one is not None)

    def __len__(self) -> int:
        kept = len(self._known.documents) if self._kept is None else int(self._kept.sum())
        return kept + len(self._added.documents)

    def __repr__(self) -> str:
        return f"<LiveRetriever: {len(self.changes):,} changes over {self._base!r}>"

    @property
    def version(self) -> str | None:
        """The base's number in the registry; None where it was not looked up there."""
        return self._base.version

    @property
    def manifest(self) -> Manifest | None:
        """The base's manifest."""
        return self._base.manifest

    @property
    def calibration(self) -> Calibration | None:
        """The base's calibration; None where its version has none."""
        return self._base.calibration
