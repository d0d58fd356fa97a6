"""The bi-encoder distilled from the teacher's scores: the row that says what is more than distillation in the student.

It learns from the same scores of the same candidates as the student does, and from the training judgements that the
teacher was trained on. It ends as a plain bi-encoder: one embedding of each text, ranked by cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.training.contrastive import BiencoderParams, no_negatives
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.losses import forward_kl, in_batch_loss
from rabtriever.training.teacher_labels import TeacherLabels
from rabtriever.training.trainer import LanguageModelModule

CANDIDATES = 8  # of a query in a step: the teacher's best, the others at random
CONTRASTIVE = 0.3  # weight of the contrastive term on the training judgements


class DistilledBiencoderModule(LanguageModelModule):
    """Fits the cosine of texts encoded alone to the teacher's scores, with a contrastive term.

    Args:
        backbone: trained in place: the trained bi-encoder.
        inputs: the training data; the contrastive term reads their judgements.
        labels: candidates with the teacher's scores.
        params: of the bi-encoder, whose budget this one has; half as many queries in a step, each with candidates.
        seed: seed of the batches.
    """

    def __init__(
        self, backbone: Backbone, inputs: TrainingInputs, labels: TeacherLabels, params: BiencoderParams, seed: int
    ) -> None:
        super().__init__(backbone, params, seed)
        self.inputs, self.labels = inputs, labels
        grades = [inputs.judgements.grades[row] for row in labels.query_rows]
        self.doubtful = possible_false_negatives(labels.candidates, labels.scores, grades)

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """KL(teacher || student) over the candidates of a batch of queries, and the contrastive term."""
        inputs, labels, total = self.inputs, self.labels, len(self.labels.query_rows)
        rows = rng.choice(total, size=min(max(1, self.params.batch_size // 2), total), replace=False)
        queries = labels.query_rows[rows]
        places = some_places(labels.candidates[rows], labels.scores[rows], CANDIDATES, rng)  # (B, C)
        chosen, wanted = (np.take_along_axis(part[rows], places, 1) for part in (labels.candidates, labels.scores))
        targets = np.array([inputs.judgements.positive(int(query), rng) for query in queries])
        used = np.unique(np.concatenate([chosen[chosen >= 0], targets]))
        column = {row: number for number, row in enumerate(used.tolist())}
        asked = self._encode([inputs.query_ids[query] for query in queries])  # (B, H)
        scores = asked @ self._encode([inputs.document_ids[row] for row in column]).T / self.params.temperature
        blocked = no_negatives(inputs.judgements, queries, column)
        first_copy = inputs.judgements.first_copy
        for number, row in enumerate(rows):  # texts count, not ids
            blocked[number] |= torch.from_numpy(np.isin(first_copy[used], first_copy[self.doubtful[row]]))
        columns, target = (self._there(np.searchsorted(used, part)) for part in (chosen.clip(used[0]), targets))
        return {
            "distillation": forward_kl(scores.gather(1, columns), self._there(wanted), self._there(chosen >= 0)),
            "contrastive": CONTRASTIVE * in_batch_loss(scores, target, blocked.to(self.device)),
        }

    def _encode(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        return F.normalize(self.backbone.embed(*pad(sequences, self.device)), dim=-1)

    def _there(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def some_places(candidates: np.ndarray, scores: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(B, count) columns of candidates (B, C): the one that the teacher scores best, then others at random.

    Columns of empty places (-1) come last.
    """
    keys = np.where(candidates >= 0, rng.random(candidates.shape), 2.0)
    best = np.where(candidates >= 0, scores, -np.inf).argmax(1)
    keys[np.arange(len(keys)), best] = -1.0
    return keys.argsort(1, kind="stable")[:, :count]


def possible_false_negatives(
    candidates: np.ndarray, scores: np.ndarray, grades: Sequence[Mapping[int, int]]
) -> list[np.ndarray]:
    """For each query the documents that the teacher scores at or above its best positive: perhaps nobody judged them.

    A query without a positive among its candidates has none.

    Args:
        candidates: (Q, C) document rows, -1 for none.
        scores: (Q, C) the teacher's.
        grades: per query, document row -> grade of its known positives.
    """
    found = []
    for rows, values, known in zip(candidates, scores, grades, strict=True):
        positive = np.isin(rows, list(known))
        least = values[positive].max(initial=-np.inf) if positive.any() else np.inf
        found.append(rows[(rows >= 0) & ~positive & (values >= least)])
    return found
