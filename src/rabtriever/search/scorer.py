"""The student's scoring function: token ids of queries in, scores of documents out."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rabtriever.lm.backbone import default_device
from rabtriever.lm.encoder import Encoder
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_terms import EncodedDocuments, QueryMemory, encoded_documents, score_weights
from rabtriever.models.predictor import FoldablePredictor, FoldedDocuments, FoldedQueries, Predictor, folded_scores
from rabtriever.search.texts import text_list

ENCODE_BATCH = 256
FEW_CELLS = 400_000  # numbers of the documents; for one query and so few, starting numba costs more than it saves


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Computes float32 products in full meanwhile, whatever precision the process has been set to."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Scorer:
    """Encoders, predictor and answer direction: all that a score needs but the documents.

    Attributes:
        encoder: encodes queries.
        document_encoder: encodes documents; of the same models unless the query side has an adapter.
        prompt: segments of both.
        predictor: the distilled predictor.
        direction: (H,) w_yes - w_no of the head that the teacher answers with, times the weight of the yes/no logit.
    """

    encoder: Encoder
    document_encoder: Encoder
    prompt: Prompt
    predictor: Predictor
    direction: Tensor

    def encode(self, texts: Iterable[str], label: str | None = None) -> Tensor:
        """(Q, W) states of the queries alone.

        Raises:
            TypeError: not a list of texts.
        """
        ids = self.prompt.query.ids(text_list(texts, "texts"))
        return torch.from_numpy(self.encoder.encode(ids, ENCODE_BATCH, label))

    def encode_documents(self, texts: Iterable[str], label: str | None = None) -> Tensor:
        """(N, W) states of documents alone, from their contents.

        Raises:
            TypeError: not a list of texts.
        """
        ids = self.prompt.document.ids(text_list(texts, "texts"))
        return torch.from_numpy(self.document_encoder.encode(ids, ENCODE_BATCH, label))

    def documents(self, states: Tensor, memory: QueryMemory | None) -> EncodedDocuments:
        """All that scores need of documents.

        Args:
            states: (N, W) as `encode_documents` gives them.
            memory: what the training queries tell of these documents, by row; None where scores need none.
        """
        weights = score_weights(self.document_encoder.compared)._replace(similarity=self.predictor.similarity)
        return encoded_documents(states, weights, memory, self.predictor.width)

    def against(self, documents: EncodedDocuments) -> Callable[[Tensor], np.ndarray]:
        """A function from (Q, W) query states to their (Q, N) scores with all of these N documents.

        Documents are folded once where the predictor folds; else it runs over blocks of them for each call.
        """
        if isinstance(self.predictor, FoldablePredictor):
            return functools.partial(self.scores, documents=on_device(self.fold(documents)))
        device = default_device()
        predictor = copy.deepcopy(self.predictor).to(device)  # the scorer's own is saved, or trained on
        moved, direction = documents.to(device), self.direction.to(device)
        return lambda queries: predictor.all_scores(queries.to(device), moved, direction).cpu().numpy()

    def fold(self, documents: EncodedDocuments) -> FoldedDocuments:
        """The index's view of documents; the predictor has to be a FoldablePredictor."""
        return self.predictor.fold_documents(documents, self.direction)

    def scores(self, query_embeddings: Tensor, documents: FoldedDocuments) -> np.ndarray:
        """(Q, N) scores: a fused loop on a CPU, torch on a GPU or for one query and few documents."""
        folded = self.predictor.fold_queries(query_embeddings, self.direction)
        if torch.cuda.is_available():
            asked = FoldedQueries(*(tensor.cuda() for tensor in folded))
            with exact_products():
                return folded_scores(asked, on_device(documents)).cpu().numpy()
        if len(query_embeddings) == 1 and documents.additive.numel() + documents.products.numel() <= FEW_CELLS:
            return folded_scores(folded, documents).numpy()
        from rabtriever.search.scan import scan

        return scan(folded, documents)


def inner_products(documents: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from (Q, W) vectors of queries to their (Q, N) products with these (N, W); as a scan of the student's.

    So the two are timed on the same device: on a CPU numpy multiplies, on a GPU torch, in full float32.
    """
    if not torch.cuda.is_available():
        return lambda queries: queries @ documents.T
    device = default_device()
    there = torch.from_numpy(documents).to(device)

    def products(queries: np.ndarray) -> np.ndarray:
        with exact_products():
            return (torch.from_numpy(queries).to(device) @ there.T).cpu().numpy()

    return products


def on_device(documents: FoldedDocuments) -> FoldedDocuments:
    """The documents where they are scanned; a caller that keeps them there spares each query the way of all of them."""
    device = default_device()
    return FoldedDocuments(*(tensor.to(device) for tensor in documents))
