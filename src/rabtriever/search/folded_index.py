"""Folded documents, ready to be searched: all of them by the scan, or those that a shortlist proposes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.vectors import top_rows
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.search.ranking import Ranking, proposals_wanted, ranking
from rabtriever.search.retriever_io import Parts
from rabtriever.search.scorer import on_device

_GATHERED = 8  # the scan reads all documents unless it may leave out all but one of so many


class FoldedIndex:
    """Documents as rows: finds the best of them for states of queries.

    Attributes:
        params: when and how the shortlist is used.
    """

    def __init__(self, parts: Parts) -> None:
        self._scorer, self._projections = parts.scorer, parts.projections
        self._open_faiss: Callable[[], Any] | None = parts.index
        self._folded = on_device(parts.folded)
        self.params = parts.params

    def __len__(self) -> int:
        return len(self._folded.bias)

    @functools.cached_property
    def _faiss(self) -> Any:
        assert self._open_faiss is not None
        return self._open_faiss()

    @property
    def bytes_per_document(self) -> int:
        """Bytes the exact scan keeps of each document."""
        return 4 * self._scorer.predictor.numbers_per_document

    @property
    def exact(self) -> bool:
        """Whether `search` scans the whole corpus (else the shortlist proposes)."""
        return len(self) <= self.params.exact_up_to

    def encode(self, texts: Iterable[str]) -> Tensor:
        """(Q, W) states of queries alone, as `shortlist` and `exact_top` take them.

        Raises:
            TypeError: not a list of texts.
        """
        return self._scorer.encode(texts)

    def shortlist(self, query_embeddings: Tensor, depth: int) -> np.ndarray:
        """(Q, depth) document rows that the FAISS index proposes, -1 where it has no more.

        Raises:
            ValueError: the corpus is scanned, and the retriever has no shortlist.
        """
        if self._projections is None:
            raise ValueError(f"{len(self):,} documents are scanned; there is no shortlist up to index.exact_up_to")
        with torch.no_grad():
            vectors = self._projections.queries(query_embeddings).float().numpy()
        return self._faiss.search(np.ascontiguousarray(vectors), min(depth, len(self)))[1]

    def exact_top(self, query_embeddings: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores, both (Q, k), of the scan over the whole corpus."""
        scores = self._scorer.scores(query_embeddings, self._folded)
        rows = top_rows(scores, k)
        return rows, np.take_along_axis(scores, rows, axis=1)

    def top(
        self, query_embeddings: Tensor, wanted: Sequence[int], allowed: Sequence[np.ndarray | None]
    ) -> list[Ranking]:
        """The best documents of each query, fewer than wanted where fewer are allowed.

        Args:
            query_embeddings: (Q, W) as `encode` gives them.
            wanted: documents wanted, for each query.
            allowed: for each query (N,) whether a document may be found; None allows all.
        """
        if self.exact:
            scores = self._scorer.scores(query_embeddings, self._folded)
            return [ranking(*one) for one in zip(scores, wanted, allowed, strict=True)]
        depths = [self._depth(k, mask) for k, mask in zip(wanted, allowed, strict=True)]
        found: dict[int, Ranking] = {}
        for depth in set(depths):  # apart, so that a query's answer does not depend on what others ask for
            queries = [query for query, one in enumerate(depths) if one == depth]
            states = query_embeddings[queries]
            proposals = self.shortlist(states, depth) if depth else np.full((len(queries), 1), -1)
            for query, state, proposed in zip(queries, states, proposals, strict=True):
                found[query] = self._best(state[None], proposed, wanted[query], allowed[query])
        return [found[query] for query in range(len(depths))]

    def _depth(self, k: int, allowed: np.ndarray | None) -> int:
        """How many proposals a query needs; none where so few documents are allowed that these are scanned."""
        if allowed is not None and np.count_nonzero(allowed) <= self.params.exact_up_to:
            return 0
        return proposals_wanted(max(k, self.params.depth), allowed)

    def folded(self, rows: Sequence[int] | np.ndarray) -> FoldedDocuments:
        """The index's view of the documents of some rows."""
        chosen = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return FoldedDocuments(*(tensor[chosen] for tensor in self._folded))

    def scores(self, query_embeddings: Tensor, documents: FoldedDocuments) -> np.ndarray:
        """(Q, N) scores of any documents, from queries' states (Q, W) and the index's view of the documents."""
        return self._scorer.scores(query_embeddings, documents)

    def _best(self, state: Tensor, proposed: np.ndarray, k: int, allowed: np.ndarray | None) -> Ranking:
        """The best proposed documents for one query (1, W); of all that are allowed where too few are proposed."""
        rows = np.sort(proposed[proposed >= 0])
        count = len(self)
        if allowed is not None:
            rows, count = rows[allowed[rows]], int(allowed.sum())
        # an index of cells searches some of them, which may hold less than was asked for, and a filter leaves few
        if len(rows) < min(count, max(k, self.params.depth)) or count == 0:
            return self._scanned(state, k, allowed)
        best = ranking(self._scorer.scores(state, self.folded(rows))[0], k)
        return Ranking(rows[best.rows], best.scores)

    def _scanned(self, state: Tensor, k: int, allowed: np.ndarray | None) -> Ranking:
        """The best allowed documents for one query (1, W), by the scan of all of them."""
        if allowed is None:
            (rows,), (scores,) = self.exact_top(state, k)
            return Ranking(rows, scores)
        rows = np.flatnonzero(allowed)
        if not len(rows):
            return Ranking(rows, np.zeros(0, dtype=np.float32))
        if len(rows) * _GATHERED > len(allowed):
            return ranking(self._scorer.scores(state, self._folded)[0], k, allowed)
        best = ranking(self._scorer.scores(state, self.folded(rows))[0], k)
        return Ranking(rows[best.rows], best.scores)
