"""The student's scoring function: token ids of queries in, scores of folded documents out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rabtriever.backbone import Backbone
from rabtriever.predictor import FoldedDocuments, FoldedQueries, Predictor, folded_scores
from rabtriever.prompt import Prompt

ENCODE_BATCH = 256


@dataclass(frozen=True)
class Scorer:
    """Encoders, predictor and answer direction: all that a score needs but the documents.

    Attributes:
        encoder: encodes queries.
        document_encoder: encodes documents; the same object unless the query side has an adapter.
        prompt: segments of both.
        predictor: the distilled predictor.
        direction: (H,) w_yes - w_no of the frozen teacher's head.
    """

    encoder: Backbone
    document_encoder: Backbone
    prompt: Prompt
    predictor: Predictor
    direction: Tensor

    def encode(self, texts: Sequence[str], label: str | None = None) -> Tensor:
        """(Q, H) states of the queries alone."""
        return torch.from_numpy(self.encoder.encode(self.prompt.query.ids(texts), ENCODE_BATCH, label))

    def fold(self, document_states: Tensor) -> FoldedDocuments:
        """The index's view of (N, H) document states."""
        return self.predictor.fold_documents(document_states, self.direction)

    def scores(self, query_states: Tensor, documents: FoldedDocuments) -> np.ndarray:
        """(Q, N) scores: the fused loop on a CPU, blocked torch operations on a GPU."""
        folded = self.predictor.fold_queries(query_states, self.direction)
        if torch.cuda.is_available():
            on_device = FoldedDocuments(*(tensor.cuda() for tensor in documents))
            return folded_scores(FoldedQueries(*(tensor.cuda() for tensor in folded)), on_device).cpu().numpy()
        from rabtriever.scan import scan

        return scan(folded, documents)
