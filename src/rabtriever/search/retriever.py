"""The retriever: one folder that answers queries, without the teacher and without reading a document.

A query is encoded alone, folded, and scored against every folded document (`exact` mode); above `exact_up_to` documents
a learned inner-product shortlist in FAISS proposes and the folded predictor scores what it proposes.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import torch
from torch import Tensor

from rabtriever.core.artifacts import Manifest
from rabtriever.data.beir_io import Corpus, Document, Run
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.search.corpus_rows import rows_of, unknown_document
from rabtriever.search.explanation import Explanation, explain
from rabtriever.search.folded_index import FoldedIndex
from rabtriever.search.retriever_io import Parts, read_retriever, write_retriever
from rabtriever.search.scorer import Scorer, on_device
from rabtriever.search.shortlist import IndexParams, Projections, build_faiss
from rabtriever.search.text_states import SHARED, encoder_identity
from rabtriever.search.texts import check_query, check_unicode, one_text, text_list

SCORE_CELLS = 20_000_000  # query-document scores held at once


class Hit(NamedTuple):
    """One retrieved document; a higher score, in nats of the teacher's answer, is more relevant."""

    doc_id: str
    score: float
    title: str
    text: str
    metadata: Mapping[str, Any] = {}

    @classmethod
    def of(cls, document: Document, score: float) -> Self:
        """A document with its score."""
        return cls(document.doc_id, float(score), *document[1:])


class Retriever(FoldedIndex):
    """A scorer over one corpus, ready to search. Open one with `Retriever.load(folder)`.

    Attributes:
        manifest: identity, parents and facts of the folder; None for a retriever assembled in memory.
        version: its number in the registry; None where it was not looked up there.
        params: when and how the shortlist is used.
        calibration: from the score of a hit to the probability that it is right; None where none was fitted.
    """

    def __init__(self, parts: Parts, manifest: Manifest | None = None) -> None:
        super().__init__(parts)
        self._documents: tuple[Document, ...] = tuple(parts.corpus.values())
        self.calibration, self.manifest = parts.calibration, manifest
        self.version: str | None = None

    @classmethod
    def assemble(
        cls,
        scorer: Scorer,
        corpus: Corpus,
        documents: Tensor,
        params: IndexParams,
        projections: Projections | None = None,
        folded: FoldedDocuments | None = None,
    ) -> Self:
        """Builds the index over the documents of the corpus, given their embeddings (N, H) in its order.

        Args:
            scorer: what scores them.
            corpus: the documents.
            documents: their embeddings.
            params: when and how the shortlist is used.
            projections: of the shortlist; None where the corpus is scanned.
            folded: the folded documents, where something was added to them; None folds them here.

        Raises:
            ValueError: no projections, and a corpus that is not scanned.
        """
        folded = scorer.fold(documents) if folded is None else folded
        if projections is None:
            if len(corpus) > params.exact_up_to:
                raise ValueError(f"{len(corpus):,} documents are over index.exact_up_to: train a shortlist for them")
            return cls(Parts(scorer, corpus, folded, params))
        with torch.no_grad():
            vectors = projections.documents(documents).float().numpy()
        index = build_faiss(vectors, params.factory)
        return cls(Parts(scorer, corpus, folded, params, projections, lambda: index))

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
        index = None if self._projections is None else lambda: self._faiss
        made = Parts(self._scorer, corpus, self._folded, self.params, self._projections, index, self.calibration)
        self.manifest = write_retriever(folder, made, parents, info, card)
        return self.manifest

    def __repr__(self) -> str:
        encoder = self._scorer.encoder
        kind = getattr(encoder.model.config, "model_type", type(encoder.model).__name__)
        version = f"version {self.version}" if self.version else "no version"
        identity = f"hash {self.manifest.hash[:12]}" if self.manifest else "not saved"
        documents = f"{len(self._documents):,} documents"
        return f"<Retriever: {documents}, backbone {kind} of width {encoder.width}, {version}, {identity}>"

    @property
    def documents(self) -> Sequence[Document]:
        """The documents, in row order."""
        return self._documents

    @functools.cached_property
    def rows(self) -> Mapping[str, int]:
        """Row of each document, by id."""
        return rows_of(self._documents)

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
            found = self.top(states, [k] * len(states), [None] * len(states))
            hits += [[Hit.of(self._documents[row], score) for row, score in zip(*one, strict=True)] for one in found]
        return hits

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The scores of any texts for one query, without the document prior.

        States of texts are kept for the next call, by all retrievers in the process with the same encoder.

        Raises:
            TypeError: the query is not one text, or the texts are not a list of them.
            ValueError: the query is blank, or a text is not Unicode text.
        """
        check_query(one_text(query, "query"), "the query")
        texts = text_list(texts, "texts")
        if not texts:
            return []
        return self._scorer.scores(self._scorer.encode([query]), self.fold_texts(texts))[0].tolist()

    def fold_texts(self, texts: Sequence[str]) -> FoldedDocuments:
        """The index's view of texts that are encoded alone, where they are scanned; without the document prior.

        Args:
            texts: contents of documents, one at least.

        Raises:
            ValueError: a text is not Unicode text, or the tokenizer leaves nothing of it.
        """
        for number, text in enumerate(texts):
            check_unicode(text, f"text {number}")
        embeddings = SHARED.of(self._encoder_identity, texts, self._scorer.encode_documents)
        return on_device(self._scorer.fold(embeddings))

    @functools.cached_property
    def _encoder_identity(self) -> str:
        if self.manifest is None:
            return uuid.uuid4().hex
        return encoder_identity(self.manifest, self._scorer.prompt.params)

    def explain(self, query: str, doc_id: str) -> Explanation:
        """The parts of the score of one document for one query; they sum to the score that `search` gives.

        Raises:
            TypeError: the query is not one text.
            ValueError: the query is blank, or the corpus has no such document.
        """
        row = self._row(one_text(doc_id, "doc_id"))
        return self.explain_folded(query, doc_id, self.folded([row]))

    def explain_folded(self, query: str, doc_id: str, document: FoldedDocuments) -> Explanation:
        """The parts of the score of one document, of which the index's view is given.

        Raises:
            TypeError: the query is not one text.
            ValueError: the query is blank.
        """
        check_query(one_text(query, "query"), "the query")
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

    def reindexed(self, corpus: Corpus) -> Self:
        """The same weights over another corpus, in memory, scanned whatever its size and without the document prior."""
        scorer = self._scorer
        scorer = self._scorer
        contents = [document.contents for document in corpus.values()]
        documents = scorer.encode_documents(contents, "encoding the corpus")
        params = replace(self.params, exact_up_to=max(self.params.exact_up_to, len(corpus)))
        made = type(self).assemble(scorer, corpus, documents, params)
        made.calibration = self.calibration
        return made

    def _row(self, doc_id: str) -> int:
        if doc_id not in self.rows:
            raise unknown_document(doc_id, self.rows)
        return self.rows[doc_id]
