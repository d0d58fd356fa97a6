"""The student: the frozen teacher encoding query and document apart, and the predictor that is distilled.

Loss of a batch of queries with their candidates (Rabtriever, arXiv 2604.23336), with KL = KL(student || teacher):

    mse . MSE(P, h_T) + logits . KL over next tokens + listwise . KL over the candidates of a query
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.models.predictor import Predictor
from rabtriever.training.losses import embedding_mse, reverse_kl
from rabtriever.training.trainer import StepModule

LOGIT_PAIRS = 128  # pairs of a step that the KL over next tokens is computed on: the head is wide
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class StudentParams:
    """Section `distill` of params.yaml.

    Attributes:
        steps: optimiser steps.
        queries: queries in a step, each with its candidates.
        mse: weight of the embedding term.
        logits: weight of the reverse KL over next tokens.
        listwise: weight of the reverse KL over a query's candidates.
        learning_rate: see StepModule.
    """

    steps: int = bounded(ge=0)
    queries: int = bounded(ge=1)
    mse: float = bounded(ge=0)
    logits: float = bounded(ge=0)
    listwise: float = bounded(ge=0)
    learning_rate: float = bounded(gt=0)


@dataclass(frozen=True)
class DistillationData:
    """Labelled candidates, as tensors.

    Attributes:
        query_embeddings: (Q, H) of the queries encoded alone by the teacher.
        document_embeddings: (N, H) of all documents encoded alone by the teacher.
        candidates: (Q, C) document rows, -1 for none.
        target_states: (Q, C, H) the teacher's context query states.
        target_scores: (Q, C) the teacher's scores, nats.
        head_weight: (V, H) the frozen LM head.
        direction: (H,) along which a state's score is read, see `student_io`.
    """

    query_embeddings: Tensor
    document_embeddings: Tensor
    candidates: Tensor
    target_states: Tensor
    target_scores: Tensor
    head_weight: Tensor
    direction: Tensor


class StudentModule(StepModule):
    """Distils the predictor; nothing else has a gradient.

    Args:
        predictor: trained in place.
        data: labelled candidates.
        params: numbers.
        seed: seed of the batches.
    """

    def __init__(self, predictor: Predictor, data: DistillationData, params: StudentParams, seed: int) -> None:
        super().__init__(seed, params.steps, params.learning_rate, WEIGHT_DECAY)
        self.predictor, self.data, self.params = predictor, data, params
        self._on_device: DistillationData | None = None

    def on_fit_start(self) -> None:
        """Moves the candidates to the training device once."""
        self._on_device = DistillationData(**{name: part.to(self.device) for name, part in vars(self.data).items()})

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted terms of one batch; a term of weight zero is not computed."""
        data, params = self._on_device or self.data, self.params
        count = len(data.candidates)
        rows = torch.from_numpy(rng.choice(count, size=min(params.queries, count), replace=False))
        candidates = data.candidates[rows]  # (B, C)
        mask = candidates >= 0
        queries = data.query_embeddings[rows][:, None, :]  # (B, 1, H)
        documents = data.document_embeddings[candidates.clamp(min=0)]  # (B, C, H)
        predicted, targets = self.predictor(queries, documents), data.target_states[rows].float()
        terms: dict[str, Tensor] = {}
        if params.mse > 0:
            terms["mse"] = params.mse * embedding_mse(predicted[mask], targets[mask], self.predictor.target_scale)
        if params.logits > 0:
            pairs = mask.flatten().nonzero().squeeze(1).cpu().numpy()
            kept = torch.from_numpy(rng.choice(pairs, size=min(LOGIT_PAIRS, len(pairs)), replace=False))
            states = predicted.flatten(0, 1)[kept], targets.flatten(0, 1)[kept]
            terms["logits"] = params.logits * reverse_kl(*(part @ data.head_weight.T for part in states))
        if params.listwise > 0:
            scores = self.predictor.scores(queries, documents, predicted, data.direction)  # (B, C)
            terms["listwise"] = params.listwise * reverse_kl(scores, data.target_scores[rows], mask)
        return terms
