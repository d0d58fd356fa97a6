"""BM25 over document contents: the lexical baseline, and what mining ranks by where the score has no cosine."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rabtriever.search.texts import text_list


class Bm25:
    """A BM25 index (bm25s, Lucene's variant, English stop words left out).

    Args:
        texts: the documents, in row order. Where none has a word that counts (of two letters or more), all score 0.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        import bm25s

        texts = text_list(texts, "texts")
        self._bm25s = bm25s
        self._index = bm25s.BM25()
        tokens = bm25s.tokenize(texts, stopwords="en", show_progress=False)
        self._empty = not tokens.vocab  # which the library cannot index
        if not self._empty:
            self._index.index(tokens, show_progress=False)
        self._count = len(texts)

    @property
    def bytes(self) -> int:
        """Size of the postings."""
        if self._empty:
            return 0
        scores = self._index.scores
        return int(sum(scores[name].nbytes for name in ("data", "indices", "indptr")))

    def rank(self, queries: Iterable[str], depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best documents, both (Q, min(depth, N)), best first.

        Documents that share no word with a query score 0 and come last, in an order without meaning.

        Raises:
            TypeError: not a list of texts.
        """
        queries = text_list(queries, "queries")
        if self._empty:
            rows = np.tile(np.arange(min(depth, self._count)), (len(queries), 1))
            return rows, np.zeros(rows.shape, dtype=np.float32)
        tokens = self._bm25s.tokenize(queries, stopwords="en", show_progress=False)
        rows, scores = self._index.retrieve(tokens, k=min(depth, self._count), show_progress=False)
        return rows.astype(np.int64), scores.astype(np.float32)
