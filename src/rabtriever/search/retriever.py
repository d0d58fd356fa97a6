"""The retriever: one folder that answers queries, without the teacher and without reading a document.

A query is encoded alone, folded, and scored against every folded document (`exact` mode); above `exact_up_to` documents
a learned inner-product shortlist in FAISS proposes and the folded predictor scores what it proposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.artifacts import (
    ArtifactMismatchError,
    Manifest,
    atomic_folder,
    read_json,
    read_manifest,
    write_json,
    write_manifest,
)
from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Corpus, Document, Queries, Run, read_corpus, write_corpus
from rabtriever.lm.backbone import default_device
from rabtriever.lm.encoder import Encoder
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.document_terms import (
    MEMORY,
    EncodedDocuments,
    QueryMemory,
    encoded_documents,
    read_memory,
    save_memory,
    score_weights,
)
from rabtriever.models.predictor import FoldablePredictor, FoldedDocuments
from rabtriever.search.scorer import ENCODE_BATCH, Scorer, on_device
from rabtriever.search.shortlist import IndexParams, Projections, build_faiss

KIND = "retriever"
SETTINGS = "settings.json"  # in a file, so that a retriever that searches otherwise is another one by its hash
SCORE_CELLS = 20_000_000  # query-document scores held at once
# a champion registered before there was a choice has no order in its manifest
_BEFORE_ORDER = {"order": "document_first"}


class Hit(NamedTuple):
    """One retrieved document; a higher score, in nats of the teacher's answer, is more relevant."""

    doc_id: str
    score: float
    title: str
    text: str


class Retriever:
    """A scorer over one corpus, ready to search. Load one with `Retriever.load(folder)`.

    Attributes:
        manifest: identity, parents and facts of the folder; None for a retriever assembled in memory.
        params: when and how the shortlist is used.
        memory: what the training queries tell of documents, for another corpus; None where scores need none.
    """

    def __init__(
        self,
        scorer: Scorer,
        corpus: Corpus,
        folded: FoldedDocuments,
        projections: Projections,
        faiss_index: Any,
        params: IndexParams,
        manifest: Manifest | None = None,
        memory: QueryMemory | None = None,
    ) -> None:
        self._scorer, self._projections, self._faiss = scorer, projections, faiss_index
        self._documents: list[Document] = list(corpus.values())
        self._folded = on_device(folded)
        self.params, self.manifest, self.memory = params, manifest, memory

    @classmethod
    def assemble(
        cls,
        scorer: Scorer,
        corpus: Corpus,
        documents: EncodedDocuments,
        projections: Projections,
        params: IndexParams,
        memory: QueryMemory | None = None,
    ) -> Retriever:
        """Builds the index over the documents of the corpus, in its order."""
        with torch.no_grad():
            vectors = projections.documents(documents).float().numpy()
        index = build_faiss(vectors, params.factory)
        return cls(scorer, corpus, scorer.fold(documents), projections, index, params, memory=memory)

    @classmethod
    def load(cls, folder: str | Path) -> Retriever:
        """Opens a retriever folder after verifying every file of it.

        Raises:
            FileNotFoundError: no such folder, or no manifest in it.
            ArtifactMismatchError: a file is missing, changed or foreign, counts disagree, or other code has written it
                with settings that this code does not know.
        """
        import faiss

        folder = Path(folder)
        manifest = read_manifest(folder, KIND)
        # one registered before the file was has its settings in the manifest
        settings = read_json(folder / SETTINGS) if SETTINGS in manifest.files else manifest.info
        try:
            scorer, params = _load_scorer(folder, settings), IndexParams(**settings["index"])
        except (KeyError, TypeError) as error:
            raise ArtifactMismatchError(
                f"{folder} has other settings than this code knows ({type(error).__name__}: {error}): search it with "
                "the code that wrote it, or build the index again"
            ) from error
        tensors = _read_tensors(folder / "documents.safetensors")
        folded = FoldedDocuments(tensors["additive"], tensors["products"], tensors["bias"])
        projections = Projections(scorer.encoder.width, params.dimension)
        projections.load_state_dict(_read_tensors(folder / "shortlist.safetensors"))
        index = faiss.read_index(str(folder / "shortlist.faiss"))
        corpus = read_corpus(folder / "corpus.jsonl")
        counts = {"texts": len(corpus), "folded documents": len(folded.bias), "shortlist vectors": index.ntotal}
        if len(set(counts.values())) != 1:
            raise ArtifactMismatchError(f"{folder}: counts disagree ({counts}): build the index again")
        return cls(scorer, corpus, folded, projections, index, params, manifest, read_memory(folder / MEMORY))

    def save(self, folder: str | Path, parents: dict[str, str], info: dict[str, Any]) -> Manifest:
        """Writes the retriever as one self-contained folder, replacing an older one only when complete."""
        import faiss

        scorer = self._scorer
        with atomic_folder(folder) as target:
            scorer.encoder.compared.save(target / "encoder")
            if scorer.document_encoder.compared is not scorer.encoder.compared:
                scorer.document_encoder.compared.save(target / "document_encoder")
            if scorer.encoder.read is not None:
                scorer.encoder.read.save(target / "reader")
            state = {**scorer.predictor.state_dict(), "direction": scorer.direction}
            _write_tensors(target / "predictor.safetensors", state)
            _write_tensors(target / "documents.safetensors", self._folded._asdict())
            if self.memory is not None:
                save_memory(target / MEMORY, self.memory)
            _write_tensors(target / "shortlist.safetensors", self._projections.state_dict())
            faiss.write_index(self._faiss, str(target / "shortlist.faiss"))
            write_corpus(target / "corpus.jsonl", {document.doc_id: document for document in self._documents})
            predictor = {
                "hidden": scorer.predictor.shape.hidden,
                "products": scorer.predictor.shape.products,
                "similarity": scorer.predictor.similarity,
            }
            settings = {
                "prompt": asdict(scorer.prompt.params),
                "predictor": predictor,
                "index": asdict(self.params),
            }
            write_json(target / SETTINGS, settings)
            facts = {
                **settings,
                "num_documents": len(self._documents),
                "dimension": scorer.predictor.width,
                "bytes_per_document": self.bytes_per_document,
                **info,
            }
            self.manifest = write_manifest(target, KIND, parents, facts)
        return self.manifest

    @property
    def bytes_per_document(self) -> int:
        """Bytes the exact scan keeps of each document."""
        return 4 * self._scorer.predictor.numbers_per_document

    @property
    def exact(self) -> bool:
        """Whether `search` scans the whole corpus (else the shortlist proposes)."""
        return len(self._documents) <= self.params.exact_up_to

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Hit]]:
        """The k best documents of each query, best first; fewer when the corpus is smaller.

        Raises:
            ValueError: k below 1, or a query that is blank or no Unicode text.
        """
        if k < 1:
            raise ValueError(f"k is {k}: ask for at least one document")
        for number, query in enumerate(queries):
            _check_query(number, query)
        hits: list[list[Hit]] = []
        size = max(1, SCORE_CELLS // len(self._documents))
        for start in range(0, len(queries), size):
            states = self._scorer.encode(queries[start : start + size])
            for rows, scores in zip(*self._top(states, k), strict=True):
                found = [(self._documents[row], float(score)) for row, score in zip(rows, scores, strict=True)]
                hits.append([Hit(document.doc_id, score, document.title, document.text) for document, score in found])
        return hits

    def rank(self, queries: Queries, k: int) -> Run:
        """The run of named queries: query id -> document id -> score, k documents each."""
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

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(Q, W) states of queries alone, as `shortlist` and `exact_top` take them."""
        return self._scorer.encode(texts)

    def reindexed(self, corpus: Corpus) -> Retriever:
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
        return Retriever.assemble(scorer, corpus, documents, self._projections, params, memory)

    def _top(self, states: Tensor, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
        if self.exact:
            rows, scores = self.exact_top(states, k)
            return list(rows), list(scores)
        all_rows, all_scores = [], []
        for state, proposed in zip(states, self.shortlist(states, max(k, self.params.depth)), strict=True):
            rows = np.sort(proposed[proposed >= 0])
            chosen = FoldedDocuments(*(tensor[torch.from_numpy(rows)] for tensor in self._folded))
            scores = self._scorer.scores(state[None], chosen)
            best = top_rows(scores, k)[0]
            all_rows.append(rows[best])
            all_scores.append(scores[0][best])
        return all_rows, all_scores


def _check_query(number: int, query: str) -> None:
    if not query.strip():
        raise ValueError(f"query {number} is blank: a query needs some text")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"query {number} is {query!r}, which is no Unicode text: give it in UTF-8") from error


def _places(documents: Sequence[Document], corpus: Corpus) -> list[int]:
    """The rows of documents in another corpus, -1 for those that it lacks or has another text for."""
    rows = {doc_id: row for row, doc_id in enumerate(corpus)}
    here = (one.doc_id in corpus and _is_same(one, corpus[one.doc_id]) for one in documents)
    return [rows[one.doc_id] if same else -1 for one, same in zip(documents, here, strict=True)]


def _is_same(document: Document, other: Document) -> bool:
    """Whether a document is still itself; ids that are numbers of rows name another one in the next export."""
    words, others = (set(one.contents.lower().split()) for one in (document, other))
    return 2 * len(words & others) >= len(words | others)


def _load_scorer(folder: Path, settings: dict[str, Any]) -> Scorer:
    device = default_device()
    encoder = load_backbone(folder / "encoder", device=device)
    apart, own = folder / "document_encoder", folder / "reader"
    documents = load_backbone(apart, device=device) if apart.is_dir() else encoder
    read = load_backbone(own, device=device) if own.is_dir() else None
    state = _read_tensors(folder / "predictor.safetensors")
    direction = state.pop("direction")
    predictor = FoldablePredictor(encoder.width, **settings["predictor"])
    predictor.load_state_dict(state)
    return Scorer(
        Encoder(encoder, read),
        Encoder(documents, read),
        Prompt(encoder.tokenizer, PromptParams(**{**_BEFORE_ORDER, **settings["prompt"]}), encoder.context),
        predictor.eval(),
        direction,
    )


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)
