"""The student's scoring function: token ids of queries in, scores of documents out."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rabtriever.lm.backbone import Backbone, default_device
from rabtriever.lm.prompt import Prompt
from rabtriever.models.predictor import FoldedDocuments, FoldedQueries, Predictor, folded_scores
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
    """Encoder, predictor and answer direction: all that a score needs but the documents.

    Attributes:
        encoder: encodes queries and documents, each alone.
        prompt: segments of both.
        predictor: the distilled predictor.
        direction: (H,) w_yes - w_no of the head that the teacher answers with.
    """

    encoder: Backbone
    prompt: Prompt
    predictor: Predictor
    direction: Tensor

    def encode(self, texts: Iterable[str], label: str | None = None) -> Tensor:
        """(Q, H) embeddings of queries encoded alone.

        Raises:
            TypeError: not a list of texts.
        """
        ids = self.prompt.query.ids(text_list(texts, "texts"))
        return torch.from_numpy(self.encoder.encode(ids, ENCODE_BATCH, label))

    def encode_documents(self, texts: Iterable[str], label: str | None = None) -> Tensor:
        """(N, H) embeddings of documents encoded alone, from their contents.

        Raises:
            TypeError: not a list of texts.
        """
        ids = self.prompt.document.ids(text_list(texts, "texts"))
        return torch.from_numpy(self.encoder.encode(ids, ENCODE_BATCH, label))

    def against(self, documents: Tensor) -> Callable[[Tensor], np.ndarray]:
        """A function from query embeddings (Q, H) to their (Q, N) scores with these documents (N, H), folded once."""
        return functools.partial(self.scores, documents=on_device(self.fold(documents)))

    def fold(self, documents: Tensor) -> FoldedDocuments:
        """The index's view of document embeddings (N, H)."""
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
    """A function from (Q, H) vectors of queries to their (Q, N) products with these (N, H); as a scan of the student's.

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
