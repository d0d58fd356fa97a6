"""Trains the projections of the shortlist; apart from them, so that who only searches needs no training library."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.search.shortlist import IndexParams, Projections
from rabtriever.training.losses import reverse_kl
from rabtriever.training.trainer import StepModule


class ShortlistModule(StepModule):
    """Trains the projections to rank a sample of documents like the student: reverse KL over the sample.

    Args:
        projections: trained in place.
        query_embeddings: (Q, W).
        documents: N of them.
        scores: (Q, N) the student's own scores.
        params: numbers.
        seed: seed of the batches.
    """

    def __init__(
        self,
        projections: Projections,
        query_embeddings: Tensor,
        documents: EncodedDocuments,
        scores: Tensor,
        params: IndexParams,
        seed: int,
    ) -> None:
        super().__init__(seed, params.steps, params.learning_rate, 0.01)
        self.projections = projections
        self.query_embeddings, self.documents, self.scores = query_embeddings, documents, scores
        self.params = params

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Reverse KL between the two rankings of one sample of queries and documents."""
        rows = _sample(len(self.query_embeddings), self.params.queries, rng)
        columns = _sample(len(self.documents.states), self.params.documents, rng)
        queries = self.projections.queries(self.query_embeddings[rows].to(self.device))
        documents = self.projections.documents(self.documents.at(columns).to(self.device))
        wanted = self.scores[rows][:, columns].to(self.device)
        return {"shortlist": reverse_kl(queries @ documents.T, wanted)}


def _sample(total: int, count: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.choice(total, size=min(count, total), replace=False))
