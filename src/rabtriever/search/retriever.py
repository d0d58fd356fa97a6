"""The retriever: one folder that answers queries, without the teacher and without reading a document.

A query is encoded alone, folded, and scored against every folded document (`exact` mode); above `exact_up_to` documents
a learned inner-product shortlist in FAISS proposes and the folded predictor scores what it proposes.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.artifacts import Manifest
from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Corpus, Document, Run
from rabtriever.data.look_alikes import LookAlikes
from rabtriever.models.document_terms import EncodedDocuments, QueryMemory, encoded_documents, score_weights
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.search.calibration import Calibration
from rabtriever.search.explanation import Explanation, explain
from rabtriever.search.retriever_io import Parts, read_retriever, write_retriever
from rabtriever.search.scorer import ENCODE_BATCH, Scorer, on_device
from rabtriever.search.shortlist import IndexParams, Projections, build_faiss
from rabtriever.search.texts import check_query, one_text, text_list

SCORE_CELLS = 20_000_000  # query-document scores held at once
_MOST_COMPARED = 20_000  # ids that are looked through for one that may have been meant


class Hit(NamedTuple):
    """One retrieved document; a higher score, in nats of the teacher's answer, is more relevant."""

    doc_id: str
    score: float
    title: str
    text: str


class Retriever:
    """A scorer over one corpus, ready to search. Open one with `Retriever.load(folder)`.

    Attributes:
        manifest: identity, parents and facts of the folder; None for a retriever assembled in memory.
        version: its number in the registry; None where it was not looked up there.
        params: when and how the shortlist is used.
        memory: what the training queries tell of documents, for another corpus; None where scores need none.
        calibration: from the score of a hit to the probability that it is right; None where none was fitted.
    """

    def __init__(self, parts: Parts, manifest: Manifest | None = None) -> None:
        self._scorer, self._projections = parts.scorer, parts.projections
        self._open_faiss: Callable[[], Any] = parts.index
        self._documents: list[Document] = list(parts.corpus.values())
        self._folded = on_device(parts.folded)
        self.params, self.memory, self.manifest = parts.params, parts.memory, manifest
        self.calibration: Calibration | None = parts.calibration
        self.version: str | None = None

    @classmethod
    def assemble(
        cls,
        scorer: Scorer,
        corpus: Corpus,
        documents: EncodedDocuments,
        projections: Projections,
        params: IndexParams,
        memory: QueryMemory | None = None,
    ) -> Self:
        """Builds the index over the documents of the corpus, in its order."""
        with torch.no_grad():
            vectors = projections.documents(documents).float().numpy()
        index = build_faiss(vectors, params.factory)
        return cls(Parts(scorer, corpus, scorer.fold(documents), projections, lambda: index, params, memory))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Opens a retriever folder after verifying every file of it.

        Raises:
            FileNotFoundError: no such folder, or no manifest in it.
            ArtifactMismatchError: a file is missing, changed or foreign, counts disagree, or other code has written it
                with settings that this code does not know.
        """
        return cls(*read_retriever(folder))

    def save(
        self, folder: str | Path, parents: dict[str, str], info: dict[str, Any], card: str | None = None
    ) -> Manifest:
        """Writes the retriever as one self-contained folder, replacing an older one only when complete.

        Args:
            folder: where it goes.
            parents: hash of each artefact it was made from, by name.
            info: further facts for the manifest.
            card: text of its MODEL_CARD.md; None for a folder without.
        """
        corpus = {document.doc_id: document for document in self._documents}
        made = (self._scorer, corpus, self._folded, self._projections, lambda: self._faiss, self.params, self.memory)
        self.manifest = write_retriever(folder, Parts(*made, self.calibration), parents, info, card)
        return self.manifest

    def __repr__(self) -> str:
        encoder = self._scorer.encoder.compared
        kind = getattr(encoder.model.config, "model_type", type(encoder.model).__name__)
        version = f"version {self.version}" if self.version else "no version"
        identity = f"hash {self.manifest.hash[:12]}" if self.manifest else "not saved"
        documents = f"{len(self._documents):,} documents"
        return f"<Retriever: {documents}, backbone {kind} of width {encoder.width}, {version}, {identity}>"

    def __len__(self) -> int:
        return len(self._documents)

    @property
    def documents(self) -> Sequence[Document]:
        """The documents, in row order."""
        return tuple(self._documents)

    @functools.cached_property
    def _faiss(self) -> Any:
        return self._open_faiss()

    @property
    def bytes_per_document(self) -> int:
        """Bytes the exact scan keeps of each document."""
        return 4 * self._scorer.predictor.numbers_per_document

    @property
    def exact(self) -> bool:
        """Whether `search` scans the whole corpus (else the shortlist proposes)."""
        return len(self._documents) <= self.params.exact_up_to

    @overload
    def search(self, queries: str, k: int = 10) -> list[Hit]: ...

    @overload
    def search(self, queries: Iterable[str], k: int = 10) -> list[list[Hit]]: ...

    def search(self, queries: str | Iterable[str], k: int = 10) -> list[Hit] | list[list[Hit]]:
        """The k best documents, best first; fewer when the corpus is smaller.

        Args:
            queries: one text, or a list of texts.
            k: documents wanted of each query.

        Returns:
            A list of hits for one text; for a list of texts a list of them for each.

        Raises:
            TypeError: neither a text nor a list of texts.
            ValueError: k below 1, or a query that is blank or not Unicode text.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one document")
        if isinstance(queries, str):
            check_query(queries, "the query")
            return self._search([queries], k)[0]
        texts = text_list(queries, "queries")
        for number, query in enumerate(texts):
            check_query(query, f"query {number}")
        return self._search(texts, k)

    def _search(self, queries: list[str], k: int) -> list[list[Hit]]:
        hits: list[list[Hit]] = []
        size = max(1, SCORE_CELLS // len(self._documents))
        for start in range(0, len(queries), size):
            states = self._scorer.encode(queries[start : start + size])
            for rows, scores in zip(*self._top(states, k), strict=True):
                found = [(self._documents[row], float(score)) for row, score in zip(rows, scores, strict=True)]
                hits.append([Hit(document.doc_id, score, document.title, document.text) for document, score in found])
        return hits

    def explain(self, query: str, doc_id: str) -> Explanation:
        """The parts of the score of one document for one query; they sum to the score that `search` gives.

        Raises:
            TypeError: the query is not one text.
            ValueError: the query is blank, or the corpus has no such document.
        """
        check_query(one_text(query, "query"), "the query")
        row = self._row(one_text(doc_id, "doc_id"))
        document = FoldedDocuments(*(tensor[row : row + 1] for tensor in self._folded))
        folded = self._scorer.predictor.fold_queries(self._scorer.encode([query]), self._scorer.direction)
        return explain(query, doc_id, folded, document, self._scorer.predictor.shape.products)

    def rank(self, queries: Mapping[str, str], k: int) -> Run:
        """The run of named queries: query id -> document id -> score, k documents each.

        Raises:
            TypeError: the queries have no names, or one is not a text.
            ValueError: as of `search`.
        """
        if not isinstance(queries, Mapping):
            raise TypeError(f"queries is a {type(queries).__name__}, expected query texts by id; give a dict")
        found = self.search(list(queries.values()), k)
        return {
            query_id: {hit.doc_id: hit.score for hit in hits} for query_id, hits in zip(queries, found, strict=True)
        }

    def shortlist(self, query_embeddings: Tensor, depth: int) -> np.ndarray:
        """(Q, depth) document rows that the FAISS index proposes, -1 where it has no more."""
        with torch.no_grad():
            vectors = self._projections.queries(query_embeddings).float().numpy()
        return self._faiss.search(np.ascontiguousarray(vectors), min(depth, len(self._documents)))[1]

    def exact_top(self, query_embeddings: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores, both (Q, k), of the scan over the whole corpus."""
        scores = self._scorer.scores(query_embeddings, self._folded)
        rows = top_rows(scores, k)
        return rows, np.take_along_axis(scores, rows, axis=1)

    def encode(self, texts: Iterable[str]) -> Tensor:
        """(Q, W) states of queries alone, as `shortlist` and `exact_top` take them.

        Raises:
            TypeError: not a list of texts.
        """
        return self._scorer.encode(texts)

    def reindexed(self, corpus: Corpus) -> Self:
        """The same weights over another corpus, in memory; the shortlist's projections stay as they are.

        What the training queries told of a document is kept where the other corpus has it: under the same id, with
        half of all their words in common.
        """
        scorer = self._scorer
        ids = scorer.prompt.document.ids([document.contents for document in corpus.values()])
        states = scorer.document_encoder.encode(ids, ENCODE_BATCH, "encoding the corpus")
        memory = self.memory.moved(_places(self._documents, corpus)) if self.memory is not None else None
        weights = score_weights(scorer.document_encoder.compared)._replace(similarity=scorer.predictor.similarity)
        # a factory that needs training data may not fit another corpus: the scan is exact whatever its size
        params = replace(self.params, factory="Flat", exact_up_to=max(self.params.exact_up_to, len(corpus)))
        documents = encoded_documents(states, weights, memory, scorer.predictor.width)
        made = type(self).assemble(scorer, corpus, documents, self._projections, params, memory)
        made.calibration = self.calibration
        return made

    def _row(self, doc_id: str) -> int:
        rows = self._rows
        if doc_id not in rows:
            compared = rows if len(rows) <= _MOST_COMPARED else {}
            near, alike = difflib.get_close_matches(doc_id, compared, n=1), LookAlikes(compared).of(doc_id)
            hint = f"; there is {alike}" if alike else f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no document is {doc_id!r}, expected one of the {len(rows):,} in the retriever{hint}")
        return rows[doc_id]

    @functools.cached_property
    def _rows(self) -> dict[str, int]:
        return {document.doc_id: row for row, document in enumerate(self._documents)}

    def _top(self, states: Tensor, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        if self.exact:
            rows, scores = self.exact_top(states, k)
            return list(rows), list(scores)
        proposals = self.shortlist(states, max(k, self.params.depth))
        found = [self._best(states[row : row + 1], proposed, k) for row, proposed in enumerate(proposals)]
        return [rows for rows, _ in found], [scores for _, scores in found]

    def _best(self, state: Tensor, proposed: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best proposed documents for one query (1, W); of all where too few are proposed."""
        if (proposed < 0).any():  # an index of cells searches some of them, which may hold less than was asked for
            (rows,), (scores,) = self.exact_top(state, k)
            return rows, scores
        rows = np.sort(proposed)
        chosen = FoldedDocuments(*(tensor[torch.from_numpy(rows)] for tensor in self._folded))
        scores = self._scorer.scores(state, chosen)
        best = top_rows(scores, k)[0]
        return rows[best], scores[0][best]


def _places(documents: Sequence[Document], corpus: Corpus) -> list[int]:
    """The rows of documents in another corpus, -1 for those that it lacks or has another text for."""
    rows = {doc_id: row for row, doc_id in enumerate(corpus)}
    here = (one.doc_id in corpus and _is_same(one, corpus[one.doc_id]) for one in documents)
    return [rows[one.doc_id] if same else -1 for one, same in zip(documents, here, strict=True)]


def _is_same(document: Document, other: Document) -> bool:
    """Whether a document is still itself; ids that are numbers of rows name another one in the next export."""
    words, others = (set(one.contents.lower().split()) for one in (document, other))
    return 2 * len(words & others) >= len(words | others)
