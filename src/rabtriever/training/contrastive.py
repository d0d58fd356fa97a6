"""Contrastive training with both sides encoded alone: the bi-encoder, which the teacher starts from.

It has negatives of the batch and mined ones, and for a model from scratch a language-modelling term. A user would train
it instead of a distilled reranker, so it has to be trained as well as we can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.core.vectors import unit
from rabtriever.data.judgements import Judgements, draw
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.training.losses import in_batch_loss
from rabtriever.training.trainer import LanguageModelModule

LANGUAGE_POSITIONS = 512
MINING_DEPTH = 8  # hard negatives of a query are drawn from its first wrong documents


@dataclass(frozen=True)
class BiencoderParams:
    """Section `train_biencoder` of params.yaml.

    Attributes:
        steps: optimiser steps.
        batch_size: queries in a step, each with one positive; all documents of the batch are compared with all queries.
        hard_negatives: mined negatives added for each query.
        refresh_every: steps between two minings with the current weights; only with hard negatives.
        temperature: divides the cosine.
        language_model: weight of the next-token loss over both segments.
        lora_rank: 0 trains every weight; above, LoRA of that rank on all linear layers.
        gradient_checkpointing: layers are computed a second time for the gradients, which saves most of the memory.
        optimizer: `muon` for the matrices of a model trained from scratch, `adamw` for a pretrained one.
        learning_rate: see StepModule.
    """

    steps: int = bounded(ge=0)
    batch_size: int = bounded(ge=2)
    hard_negatives: int = bounded(ge=0)
    refresh_every: int = bounded(ge=1)
    temperature: float = bounded(gt=0)
    language_model: float = bounded(ge=0)
    lora_rank: int = bounded(ge=0)
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "muon"]
    learning_rate: float = bounded(gt=0)


class ContrastiveModule(LanguageModelModule):
    """InfoNCE over in-batch and mined negatives, on last states encoded alone, with an optional next-token loss.

    Args:
        backbone: trained in place.
        judgements: positives of the training queries.
        query_ids: token ids of each query row's segment.
        document_ids: token ids of each document row's segment.
        params: numbers.
        seed: seed of the batches.
    """

    def __init__(
        self,
        backbone: Backbone,
        judgements: Judgements,
        query_ids: Sequence[Sequence[int]],
        document_ids: Sequence[Sequence[int]],
        params: BiencoderParams,
        seed: int,
    ) -> None:
        if params.language_model > 0 and backbone.attention == "segment":
            raise ValueError(
                f"language_model is {params.language_model}, but with backbone.attention: segment "
                "a token sees the next one: set it to 0"
            )
        super().__init__(backbone, params, seed)
        self.judgements = judgements
        self.query_ids, self.document_ids = query_ids, document_ids
        self._mined: np.ndarray | None = None  # (Q, depth) document rows

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """InfoNCE and, when weighted, the next-token loss of one batch."""
        params = self.params
        queries = self.judgements.sample_queries(params.batch_size, rng)
        targets = [self.judgements.positive(int(query), rng) for query in queries]
        documents = list(dict.fromkeys(targets + self._negatives(queries, rng)))
        column = {row: number for number, row in enumerate(documents)}
        query_batch = pad([self.query_ids[query] for query in queries], self.device)
        document_batch = pad([self.document_ids[row] for row in documents], self.device)
        query_embeddings, document_embeddings = (
            self.backbone.hidden_states(*query_batch),
            self.backbone.hidden_states(*document_batch),
        )
        scores = self.similarity(query_embeddings, query_batch[1], document_embeddings, document_batch[1])
        blocked = no_negatives(self.judgements, queries, column).to(self.device)  # (B, D)
        target = torch.tensor([column[row] for row in targets], device=self.device)
        terms = {"contrastive": in_batch_loss(scores / params.temperature, target, blocked)}
        if params.language_model > 0:
            losses = [
                self._next_token_loss(states, *batch, rng)
                for states, batch in ((query_embeddings, query_batch), (document_embeddings, document_batch))
            ]
            terms["language_model"] = params.language_model * (losses[0] + losses[1]) / 2
        return terms

    def similarity(self, queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor) -> Tensor:
        """(B, D) cosine of the segments' states, from token states (B, T, H) and (D, T, H) with their masks."""
        pooled = self.backbone.pool(queries, query_mask), self.backbone.pool(documents, document_mask)
        return F.normalize(pooled[0], dim=-1) @ F.normalize(pooled[1], dim=-1).T

    def mine(self) -> np.ndarray:
        """(Q, depth) hard negatives of every query with the current weights, -1 where there are fewer."""
        return mine_with_cosine(self.backbone, self.judgements, self.query_ids, self.document_ids)

    def _next_token_loss(self, states: Tensor, ids: Tensor, mask: Tensor, rng: np.random.Generator) -> Tensor:
        """Next-token loss at a sample of positions: the head over a whole batch would cost more than the layers."""
        positions = mask[:, 1:].flatten().nonzero().squeeze(1)
        kept = rng.choice(len(positions), size=min(LANGUAGE_POSITIONS, len(positions)), replace=False)
        chosen = positions[torch.from_numpy(kept).to(positions.device)]
        logits = self.backbone.logits(states[:, :-1].flatten(0, 1)[chosen])
        return F.cross_entropy(logits, ids[:, 1:].flatten()[chosen])

    def _negatives(self, queries: np.ndarray, rng: np.random.Generator) -> list[int]:
        if self.params.hard_negatives == 0:
            return []
        if self._mined is None or self.global_step % self.params.refresh_every == 0:
            self._mined = self.mine()
        return [row for query in queries for row in draw(self._mined[query], self.params.hard_negatives, rng)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the mined negatives: the weights that mined them are gone when a run resumes between two minings."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["mined"] = self._mined

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the mined negatives up again."""
        super().on_load_checkpoint(checkpoint)
        self._mined = checkpoint["mined"]


def no_negatives(judgements: Judgements, queries: np.ndarray, column: dict[int, int]) -> Tensor:
    """(B, D) bool: the document is not a negative of the query: it is its positive, or nobody can tell."""
    documents = list(column)
    mask = torch.from_numpy(np.stack([~judgements.eligible(int(query), documents) for query in queries]))
    for row, query in enumerate(queries):
        for document in judgements.grades[int(query)]:
            if document in column:
                mask[row, column[document]] = True
    return mask


def mine_with_cosine(
    backbone: Backbone,
    judgements: Judgements,
    query_ids: Sequence[Sequence[int]],
    document_ids: Sequence[Sequence[int]],
    label: str | None = None,
    batch_size: int = 256,
) -> np.ndarray:
    """Hard negatives: the documents most similar to each query by the cosine of texts encoded alone.

    Its positives are left out, and so are documents without any judgement.

    Returns:
        (Q, MINING_DEPTH) rows, best first, -1 where there are fewer.
    """
    documents = unit(backbone.encode(document_ids, batch_size))
    return hard_negatives(judgements, unit(backbone.encode(query_ids, batch_size, label)), documents)


def hard_negatives(judgements: Judgements, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    """As `mine_with_cosine`, from unit embeddings of the queries (Q, H) and of the documents (N, H)."""
    starts = range(0, len(queries), 512)
    scores = ((start, queries[start : start + 512] @ documents.T) for start in starts)
    return np.concatenate([judgements.hardest(part, start, MINING_DEPTH) for start, part in scores])
