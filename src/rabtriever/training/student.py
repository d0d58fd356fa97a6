"""The student: the frozen teacher encoding query and document apart, and the predictor that is distilled.

Loss of a batch of queries with their candidates (Rabtriever, arXiv 2604.23336), with KL = KL(student || teacher):

    mse . MSE(P, h_T) + logits . KL over next tokens + listwise . KL over the candidates of a query

`divergence` may turn both KL around and `vocabulary` narrow the first to the two answers, to compare with.

`labels` mixes the training judgements in (a listwise loss over the known grades); it is zero in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.models.predictor import Predictor
from rabtriever.training.losses import embedding_mse, forward_kl, listwise_loss, reverse_kl
from rabtriever.training.trainer import StepModule

DIVERGENCES = {"reverse": reverse_kl, "forward": forward_kl}


@dataclass(frozen=True)
class StudentParams:
    """Section `distill` of params.yaml.

    Attributes:
        steps: optimiser steps of one round.
        queries: queries in a step, each with its candidates.
        mse: weight of the embedding term.
        logits: weight of the KL over next tokens.
        logit_pairs: pairs of a step that the KL over next tokens is computed on; the head is wide.
        listwise: weight of the KL over a query's candidates.
        divergence: direction of both: `reverse` is KL(student || teacher), the paper's, `forward` the other one.
        vocabulary: next tokens compared: `all`, or the two `answers` alone, normalised to sum 1.
        labels: weight of the listwise loss on the training judgements.
        query_adapter: `none` keeps the query side frozen; `lora` and `full` train a query encoder of its own.
        lora_rank: rank of the `lora` adapter.
        learning_rate, weight_decay: see StepModule.
        encoder_learning_rate: peak learning rate of the adapter's weights.
    """

    steps: int = bounded(ge=0)
    queries: int = bounded(ge=1)
    mse: float = bounded(ge=0)
    logits: float = bounded(ge=0)
    logit_pairs: int = bounded(ge=1)
    listwise: float = bounded(ge=0)
    divergence: Literal["reverse", "forward"]
    vocabulary: Literal["all", "answers"]
    labels: float = bounded(ge=0)
    query_adapter: Literal["none", "lora", "full"]
    lora_rank: int = bounded(ge=1)
    learning_rate: float = bounded(gt=0)
    encoder_learning_rate: float = bounded(gt=0)
    weight_decay: float = bounded(ge=0)


@dataclass(frozen=True)
class DistillationData:
    """What a round annotated, as tensors.

    Attributes:
        query_embeddings: (Q, W) states of the queries alone, of the teacher's encoder.
        documents: all documents, encoded alone.
        candidates: (Q, C) document rows, -1 for none.
        target_states: (Q, C, H) the teacher's context query states.
        target_scores: (Q, C) the teacher's scores, nats.
        grades: (Q, C) training judgements; -1 where a candidate must not be used as a labelled negative.
        head_weight: (V, H) the frozen LM head.
        yes_id: vocabulary id of the positive answer.
        no_id: vocabulary id of the negative answer.
        direction: (H,) along which a state's score is read, see `student_io`.
        query_ids: token ids of the query segments; read only with a query adapter.
    """

    query_embeddings: Tensor
    documents: EncodedDocuments
    candidates: Tensor
    target_states: Tensor
    target_scores: Tensor
    grades: Tensor
    head_weight: Tensor
    yes_id: int
    no_id: int
    direction: Tensor
    query_ids: Sequence[Sequence[int]]


class StudentModule(StepModule):
    """Distils the predictor, and with an adapter the query encoder; nothing else has a gradient.

    Args:
        predictor: trained in place.
        data: the round's annotations.
        params: numbers.
        seed: seed of the batches.
        query_encoder: a backbone to train on the query side; None keeps the cached query states.
    """

    def __init__(
        self,
        predictor: Predictor,
        data: DistillationData,
        params: StudentParams,
        seed: int,
        query_encoder: Backbone | None = None,
    ) -> None:
        super().__init__(seed, params.steps, params.learning_rate, params.weight_decay)
        self.predictor, self.query_encoder = predictor, query_encoder
        self.data, self.params = data, params
        self._on_device: DistillationData | None = None

    def on_fit_start(self) -> None:
        """Moves the annotations to the training device once."""
        moved = {
            name: value.to(self.device) if isinstance(value, (Tensor, EncodedDocuments)) else value
            for name, value in vars(self.data).items()
        }
        self._on_device = DistillationData(**moved)

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted terms of one batch; a term of weight zero is not computed."""
        data, params = self._on_device or self.data, self.params
        count = len(data.candidates)
        rows = torch.from_numpy(rng.choice(count, size=min(params.queries, count), replace=False))
        candidates = data.candidates[rows]  # (B, C)
        mask = candidates >= 0
        queries = self._query_states(data, rows)  # (B, H)
        documents = data.documents.at(candidates.clamp(min=0))  # of (B, C)
        predicted = self.predictor(queries[:, None, :], documents.states)  # (B, C, H)
        targets = data.target_states[rows].float()
        scores = self.predictor.scores(queries[:, None, :], documents, predicted, data.direction)  # (B, C)
        divergence = DIVERGENCES[params.divergence]
        terms: dict[str, Tensor] = {}
        if params.mse > 0:
            terms["mse"] = params.mse * embedding_mse(predicted[mask], targets[mask], self.predictor.target_scale)
        if params.logits > 0:
            pairs = mask.flatten().nonzero().squeeze(1).cpu().numpy()
            kept = torch.from_numpy(rng.choice(pairs, size=min(params.logit_pairs, len(pairs)), replace=False))
            answers = [data.yes_id, data.no_id]
            head = (data.head_weight if params.vocabulary == "all" else data.head_weight[answers]).T
            terms["logits"] = params.logits * divergence(
                predicted.flatten(0, 1)[kept] @ head, targets.flatten(0, 1)[kept] @ head
            )
        if params.listwise > 0:
            terms["listwise"] = params.listwise * divergence(scores, data.target_scores[rows], mask)
        if params.labels > 0:
            terms["labels"] = params.labels * self._label_loss(scores, data.grades[rows], mask)
        return terms

    def _label_loss(self, scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
        usable = mask & (grades >= 0)
        has_positive = (grades.clamp(min=0) * usable).sum(-1) > 0
        if not bool(has_positive.any()):
            return scores.sum() * 0.0
        return listwise_loss(scores[has_positive], grades[has_positive].clamp(min=0), usable[has_positive])

    def _query_states(self, data: DistillationData, rows: Tensor) -> Tensor:
        if self.query_encoder is None:
            return data.query_embeddings[rows]
        ids, mask = pad([data.query_ids[int(row)] for row in rows], self.device)
        own = self.query_encoder.embed(ids, mask)
        return torch.cat([own, data.query_embeddings[rows][:, own.shape[1] :]], dim=-1)  # what is read stays frozen

    def learning_rates(self) -> list[tuple[list[torch.nn.Parameter], float]]:
        """The predictor's rate, and a rate of its own for the query encoder's trainable weights."""
        groups = [(list(self.predictor.parameters()), self.params.learning_rate)]
        if self.query_encoder is not None:
            trainable = [p for p in self.query_encoder.parameters() if p.requires_grad]
            groups.append((trainable, self.params.encoder_learning_rate))
        return groups
