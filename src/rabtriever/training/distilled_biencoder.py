"""The bi-encoder distilled from the teacher's scores: the row that says what is more than distillation in the student.

It learns from the same scores of the same candidates as the student does, and from the training judgements that the
teacher was trained on, but ends as a plain bi-encoder: one state of each text, ranked by cosine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.data.judgements import Judgements
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.training.contrastive import no_negatives
from rabtriever.training.losses import forward_kl, in_batch_loss, margin_mse
from rabtriever.training.teacher_labels import TeacherLabels
from rabtriever.training.trainer import LanguageModelModule


@dataclass(frozen=True)
class DistilledBiencoderParams:
    """Section `train_biencoder_distilled` of params.yaml.

    Attributes:
        steps: optimiser steps.
        queries: queries in a step; all documents of the step are encoded once.
        candidates: documents of a query's list in a step: the teacher's best, the others at random.
        objective: `kl` is KL(teacher || student) over the list, `margin_mse` compares margins to the teacher's best.
        contrastive: weight of the contrastive term on the training judgements, over all documents of the step.
        temperature: divides the cosine; with `margin_mse` its inverse is the largest score, in nats.
        lora_rank, gradient_checkpointing: see ContrastiveParams.
        optimizer: `muon` for the matrices of a model trained from scratch, `adamw` for a pretrained one.
        learning_rate, weight_decay: see StepModule.
        start_share: see BiencoderParams.
    """

    steps: int = bounded(ge=0)
    queries: int = bounded(ge=1)
    candidates: int = bounded(ge=2)
    objective: Literal["kl", "margin_mse"]
    contrastive: float = bounded(ge=0)
    temperature: float = bounded(gt=0)
    lora_rank: int = bounded(ge=0)
    gradient_checkpointing: bool
    optimizer: Literal["adamw", "muon"]
    learning_rate: float = bounded(gt=0)
    weight_decay: float = bounded(ge=0)
    start_share: float = bounded(ge=0, le=1)


class CandidateList(NamedTuple):
    """What the teacher said of one query, best document first.

    Attributes:
        query: query row.
        documents: (C,) document rows, each once.
        scores: (C,) the teacher's scores, nats.
        possible_false_negatives: document rows that must not be used as negatives: possible false negatives.
    """

    query: int
    documents: np.ndarray
    scores: np.ndarray
    possible_false_negatives: frozenset[int]


class DistilledBiencoderModule(LanguageModelModule):
    """Fits the cosine of states encoded alone to the teacher's scores, with an optional contrastive term.

    Args:
        backbone: trained in place: the trained bi-encoder, or the teacher's, to polish it.
        judgements: judgements of the training queries; read by the contrastive term alone.
        query_ids: token ids of each query row's segment.
        document_ids: token ids of each document row's segment.
        annotated: what the rounds annotated, all by one teacher.
        params: numbers.
        seed: seed of the batches.

    Raises:
        ValueError: no annotated candidates.
    """

    def __init__(
        self,
        backbone: Backbone,
        judgements: Judgements,
        query_ids: Sequence[Sequence[int]],
        document_ids: Sequence[Sequence[int]],
        annotated: Sequence[TeacherLabels],
        params: DistilledBiencoderParams,
        seed: int,
    ) -> None:
        super().__init__(backbone, params, seed)
        self.judgements = judgements
        self.query_ids, self.document_ids = query_ids, document_ids
        self._lists = join_rounds(annotated)

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The distillation term and, when weighted, the contrastive term of one batch."""
        params = self.params
        size = min(params.queries, len(self._lists))
        chosen = rng.choice(len(self._lists), size=size, replace=False)
        lists = [self._shortened(self._lists[number], rng) for number in chosen]
        targets: list[int] = []
        if params.contrastive > 0:
            targets = [self.judgements.positive(found.query, rng) for found in lists]
        rows = dict.fromkeys([row for found in lists for row in found.documents.tolist()] + targets)
        column = {row: number for number, row in enumerate(rows)}
        queries = self._encode([self.query_ids[found.query] for found in lists])  # (B, H)
        documents = self._encode([self.document_ids[row] for row in column])  # (D, H)
        scores = queries @ documents.T / params.temperature  # (B, D)
        terms = {"distillation": self._distillation(scores, lists, column)}
        if params.contrastive > 0:
            target = torch.tensor([column[row] for row in targets], device=self.device)
            blocked = self._blocked(lists, column).to(self.device)
            terms["contrastive"] = params.contrastive * in_batch_loss(scores, target, blocked)
        return terms

    def _distillation(self, scores: Tensor, lists: Sequence[CandidateList], column: dict[int, int]) -> Tensor:
        """The objective over the lists of a batch; the ends of lists shorter than the longest are masked."""
        shape = (len(lists), max(len(found.documents) for found in lists))
        columns, teacher = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
        mask = np.zeros(shape, dtype=bool)
        for number, found in enumerate(lists):
            part = slice(len(found.documents))
            columns[number, part] = [column[row] for row in found.documents.tolist()]
            teacher[number, part], mask[number, part] = found.scores, True
        places, wanted, used = (torch.from_numpy(array).to(self.device) for array in (columns, teacher, mask))
        objective = forward_kl if self.params.objective == "kl" else margin_mse
        return objective(scores.gather(1, places), wanted, used)

    def _shortened(self, found: CandidateList, rng: np.random.Generator) -> CandidateList:
        """A list of at most `candidates`: the teacher's best, without which it says little, and others at random."""
        count = len(found.documents)
        if count <= self.params.candidates:
            return found
        kept = np.append(0, 1 + rng.choice(count - 1, size=self.params.candidates - 1, replace=False))
        return found._replace(documents=found.documents[kept], scores=found.scores[kept])

    def _blocked(self, lists: Sequence[CandidateList], column: dict[int, int]) -> Tensor:
        """(B, D) bool: documents that are not negatives: positives, possible false negatives, and unjudged ones."""
        blocked = no_negatives(self.judgements, np.array([found.query for found in lists]), column)
        first_copy = self.judgements.first_copy
        texts = first_copy[list(column)]
        for number, found in enumerate(lists):
            unsafe = np.isin(texts, first_copy[list(found.possible_false_negatives)])
            blocked[number] |= torch.from_numpy(unsafe)
        return blocked

    def _encode(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        return F.normalize(self.backbone.embed(*pad(sequences, self.device)), dim=-1)


def join_rounds(annotated: Sequence[TeacherLabels]) -> list[CandidateList]:
    """One list per query of all that the rounds annotated, ordered by query row.

    A document that several rounds annotated is taken once; if any of
    them took it for a possible false negative, it is one.

    Raises:
        ValueError: no candidates at all.
    """
    scores: dict[int, dict[int, float]] = {}
    possible_false_negatives: dict[int, set[int]] = {}
    for part in annotated:
        for query, rows, values, grades in zip(
            part.query_rows.tolist(), part.candidates, part.scores, part.grades, strict=True
        ):
            used = rows >= 0
            scores.setdefault(query, {}).update(zip(rows[used].tolist(), values[used].tolist(), strict=True))
            possible_false_negatives.setdefault(query, set()).update(rows[used & (grades < 0)].tolist())
    if not any(scores.values()):
        raise ValueError(f"no candidates in {len(annotated)} rounds: annotate some with the teacher first (stage mine)")
    lists = []
    for query in sorted(query for query, found in scores.items() if found):
        best = sorted(scores[query].items(), key=lambda item: (-item[1], item[0]))
        documents, values = zip(*best, strict=True)
        lists.append(
            CandidateList(
                query,
                np.array(documents),
                np.array(values, dtype=np.float32),
                frozenset(possible_false_negatives[query]),
            )
        )
    return lists
