"""Training of the teacher: a generative reranker that reads the document, then the query, and answers yes or no.

Its state at the last prompt token, `h_T(q, d)`, is both what it scores with and what the student is trained to predict;
how it reads and scores is in reranker.py. It starts from the bi-encoder's weights, and learns what reading adds to the
bi-encoder's cosine. That stays as it is, so the teacher cannot forget how to compare while it learns to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.data.judgements import Judgements, draw
from rabtriever.lm.answer import yes_no_logit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.gradient_checkpointing import read_pairs
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models.reranker import ask, read_documents
from rabtriever.training.losses import listwise_loss, reranker_loss
from rabtriever.training.trainer import LanguageModelModule


@dataclass(frozen=True)
class TeacherParams:
    """Section `train_teacher` of params.yaml.

    Attributes:
        steps: optimiser steps.
        queries: queries in a step.
        positives: positives of a query, the first of them drawn by grade.
        hard_negatives: negatives drawn from the mistakes of the bi-encoder it starts from.
        random_negatives: negatives drawn from all judged documents.
        similarity: weight of the bi-encoder's cosine in the score, in nats; 0 for the paper's score.
        pointwise: weight of supervised fine-tuning: yes or no to each candidate.
        listwise: weight of the cross-entropy of log p(yes) - log p(no) over a query's candidates.
        listwise_score: weight of the cross-entropy of the whole score over a query's candidates.
        lora_rank: 0 trains every weight; above, LoRA of that rank on all linear layers.
        gradient_checkpointing: layers are computed a second time for the gradients, which saves most of the memory; a
            document is then read anew with each of its queries.
        optimizer: `muon` for the matrices of a model trained from scratch, `adamw` for a pretrained one.
        learning_rate: see StepModule.
    """

    steps: int = bounded(ge=0)
    queries: int = bounded(ge=1)
    positives: int = bounded(ge=1)
    hard_negatives: int = bounded(ge=0)
    random_negatives: int = bounded(ge=0)
    similarity: float = bounded(ge=0)
    pointwise: float = bounded(ge=0)
    listwise: float = bounded(ge=0)
    listwise_score: float = bounded(ge=0)
    lora_rank: int = bounded(ge=0)
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "muon"]
    learning_rate: float = bounded(gt=0)


class CandidateLists(NamedTuple):
    """The candidates of a batch of queries, every field (B, C).

    Attributes:
        columns: which document of the batch each candidate is.
        mask: False where a list has ended.
        eligible: the candidate's grade may be trained on; False for documents without any judgement.
        grades: known grades, 0 for the others.
    """

    columns: Tensor
    mask: Tensor
    eligible: Tensor
    grades: Tensor


class TeacherModule(LanguageModelModule):
    """Trains the reranker on candidates of each query: yes or no, and listwise over grades, alone and with the cosine.

    The documents of a step are read once and shared by its queries, as they are at inference.

    Args:
        backbone: trained in place (with LoRA: its adapters are).
        prompt: segments and answers.
        judgements: judgements of the training queries.
        query_ids: token ids per query row.
        document_ids: token ids per document row.
        query_embeddings: (Q, H) of the training queries by the bi-encoder, of unit length.
        document_embeddings: (N, H) of the documents by the bi-encoder, of unit length.
        negatives: (Q, depth) rows of each query's hard negatives, best first, -1 for none.
        params: numbers.
        seed: seed of the batches.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: Prompt,
        judgements: Judgements,
        query_ids: Sequence[Sequence[int]],
        document_ids: Sequence[Sequence[int]],
        query_embeddings: np.ndarray,
        document_embeddings: np.ndarray,
        negatives: np.ndarray,
        params: TeacherParams,
        seed: int,
    ) -> None:
        super().__init__(backbone, params, seed)
        backbone.configure(similarity=params.similarity)
        self.prompt, self.judgements, self.negatives = prompt, judgements, negatives
        self.query_ids, self.document_ids = query_ids, document_ids
        self.query_embeddings, self.document_embeddings = query_embeddings, document_embeddings

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted terms of one batch; a term of weight zero is not computed."""
        params = self.params
        queries = self.judgements.sample_queries(params.queries, rng)
        lists = [self.candidates(int(query), rng) for query in queries]
        column = {row: number for number, row in enumerate(dict.fromkeys(row for one in lists for row in one))}
        batch = self._lists(queries, lists, column)
        logits = self._read(queries, batch, column)  # (B, C)
        terms: dict[str, Tensor] = {}
        if params.pointwise > 0:
            terms["pointwise"] = params.pointwise * reranker_loss(logits, batch.grades, batch.eligible)
        if params.listwise > 0:
            terms["listwise"] = params.listwise * listwise_loss(logits, batch.grades, batch.eligible)
        if params.listwise_score > 0:
            scores = logits + params.similarity * self._cosine(queries, batch, column)
            terms["listwise_score"] = params.listwise_score * listwise_loss(scores, batch.grades, batch.eligible)
        return terms

    def candidates(self, query: int, rng: np.random.Generator) -> list[int]:
        """Document rows a query is trained on: a positive drawn by grade, further positives, negatives."""
        params, grades = self.params, self.judgements.grades[query]
        chosen = [self.judgements.positive(query, rng)]
        others = [row for row in self.judgements.distinct(grades) if row != chosen[0]]
        chosen += draw(others, params.positives - 1, rng)
        chosen += draw(self.negatives[query], params.hard_negatives, rng)
        known = set(chosen) | set(grades) | self.judgements.ignored[query]
        pool = rng.choice(self.judgements.negatives, size=3 * params.random_negatives)
        drawn = [int(row) for row in dict.fromkeys(pool.tolist()) if row not in known]
        return chosen + drawn[: params.random_negatives]

    def _read(self, queries: np.ndarray, batch: CandidateLists, column: dict[int, int]) -> Tensor:
        """Yes/no logits (B, C) of the candidates, 0 where there is none."""
        documents = [self.document_ids[row] for row in column]
        asking = batch.mask.nonzero()[:, 0]  # (P,) which query of the step
        asked, rows = [self.query_ids[queries[place]] for place in asking.tolist()], batch.columns[batch.mask]
        if self.params.gradient_checkpointing:
            states = read_pairs(self.backbone, documents, asked, rows.tolist()).asked
        else:
            prefix = read_documents(self.backbone, *pad(documents, self.device))
            states = ask(self.backbone, prefix, rows, *pad(asked, self.device))
        flat = yes_no_logit(states, self.backbone.head_weight, self.prompt.yes_id, self.prompt.no_id)
        logits = torch.zeros(batch.mask.shape, device=self.device, dtype=flat.dtype)
        return logits.masked_scatter(batch.mask, flat)

    def _cosine(self, queries: np.ndarray, batch: CandidateLists, column: dict[int, int]) -> Tensor:
        """(B, C) the bi-encoder's cosine of each query with its candidates."""
        cosine = self.query_embeddings[queries] @ self.document_embeddings[list(column)].T  # (B, D)
        return torch.from_numpy(cosine).to(self.device).gather(1, batch.columns)

    def _lists(self, queries: np.ndarray, lists: list[list[int]], column: dict[int, int]) -> CandidateLists:
        shape = (len(lists), max(len(chosen) for chosen in lists))
        columns = torch.zeros(shape, dtype=torch.int64)
        mask, eligible = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        grades = torch.zeros(shape)
        for number, (query, chosen) in enumerate(zip(queries, lists, strict=True)):
            known = self.judgements.grades[int(query)]
            part = slice(len(chosen))
            columns[number, part] = torch.tensor([column[row] for row in chosen])
            mask[number, part] = True
            eligible[number, part] = torch.from_numpy(self.judgements.eligible(int(query), chosen))
            grades[number, part] = torch.tensor([float(known.get(row, 0)) for row in chosen])
        return CandidateLists(*(tensor.to(self.device) for tensor in (columns, mask, eligible, grades)))
