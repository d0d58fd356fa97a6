"""Trains the projections of the shortlist; apart from them, so that who only searches needs no training library."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rabtriever.search.shortlist import Projections
from rabtriever.training.losses import reverse_kl
from rabtriever.training.trainer import StepModule

STEPS, LEARNING_RATE = 300, 0.005
QUERIES, DOCUMENTS = 128, 512  # of a step


class ShortlistModule(StepModule):
    """Trains the projections to rank a sample of documents like the student: reverse KL over the sample.

    Args:
        projections: trained in place.
        query_embeddings: (Q, H).
        documents: (N, H) embeddings.
        scores: (Q, N) the student's own scores.
        seed: seed of the batches.
    """

    def __init__(
        self,
        projections: Projections,
        query_embeddings: Tensor,
        documents: Tensor,
        scores: Tensor,
        seed: int,
    ) -> None:
        super().__init__(seed, STEPS, LEARNING_RATE, 0.01)
        self.projections = projections
        self.query_embeddings, self.documents, self.scores = query_embeddings, documents, scores

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Reverse KL between the two rankings of one sample of queries and documents."""
        rows = _sample(len(self.query_embeddings), QUERIES, rng)
        columns = _sample(len(self.documents), DOCUMENTS, rng)
        queries = self.projections.queries(self.query_embeddings[rows].to(self.device))
        documents = self.projections.documents(self.documents[columns].to(self.device))
        wanted = self.scores[rows][:, columns].to(self.device)
        return {"shortlist": reverse_kl(queries @ documents.T, wanted)}


def _sample(total: int, count: int, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.choice(total, size=min(count, total), replace=False))
