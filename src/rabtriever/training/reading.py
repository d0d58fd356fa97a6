"""The reader: weights of the teacher's that read only what follows, trained after the states are settled.

A teacher whose one set of weights must both encode texts alone and read one after the other does neither as well as it
could, and the average of weights that its states profit from (averaging.py) leaves hardly anything of what it says when
it reads. So the reading gets a copy of the weights of its own. Documents are still read by the teacher, once for all
queries, and the states that are compared are still the teacher's: only the query's pass after the document changes,
which is what the predictor rebuilds, from the reader's own states of both texts alone (encoder.py).

It is trained to rank from both sides: a query's candidates, and, of a document that is right for a query, that query
among others to which it is not. Without the second, an answer that is right for a document whatever is asked costs
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rabtriever.lm.answer import yes_no_logit
from rabtriever.lm.padding import pad
from rabtriever.models.reranker import ask
from rabtriever.training.losses import forward_kl, listwise_loss, reranker_loss
from rabtriever.training.teacher import TeacherBatch, TeacherModule


class ReaderModule(TeacherModule):
    """Trains a reader beside the frozen teacher whose copy it starts as.

    The arguments are those of TeacherModule; `encoder` is the teacher. The schedule is `reader_steps` long.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps = self.params.reader_steps

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted terms of one batch, all of them on log p(yes) - log p(no) alone."""
        params = self.params
        drawn = self.batch(rng)
        yes_no_logit = self.yes_no_logit(drawn.queries, drawn.lists, drawn.read)  # (B, C)
        lists, cosine = drawn.lists, self.alone(drawn.queries, drawn.column, drawn.read)  # (B, D)
        terms: dict[str, Tensor] = {}
        if params.pointwise > 0:
            terms["pointwise"] = params.pointwise * reranker_loss(yes_no_logit, lists.grades, lists.eligible)
        if params.listwise > 0:
            terms["listwise"] = params.listwise * listwise_loss(yes_no_logit, lists.grades, lists.eligible)
        if params.agreement > 0:
            near = cosine.gather(1, lists.columns) / params.temperature
            terms["agreement"] = params.agreement * forward_kl(yes_no_logit, near, lists.mask)
        if params.column > 0:
            terms["column"] = params.column * self._column(drawn, yes_no_logit[:, 0], cosine, rng)
        return terms

    def _column(self, drawn: TeacherBatch, right: Tensor, cosine: Tensor, rng: np.random.Generator) -> Tensor:
        """Cross-entropy of each query among others of the step, asked of its first positive document.

        Half of the others are the nearest to the document, the rest are drawn; none is one that it is right for.
        """
        others, documents = self._others(drawn, cosine.cpu().numpy(), rng)
        mask = others >= 0  # (B, K)
        owners, places = np.nonzero(mask)
        if not len(owners):
            return right.sum() * 0.0
        asked = others[owners, places]
        states = self._ask(drawn, documents[owners], asked)
        scores = yes_no_logit(states, self.backbone.head_weight, self.prompt.yes_id, self.prompt.no_id)
        kept = torch.from_numpy(mask).to(right.device)
        wrong = torch.zeros(kept.shape, device=right.device, dtype=scores.dtype).masked_scatter(kept, scores)
        both = torch.cat([right[:, None], wrong], dim=1)
        grades = torch.zeros_like(both)
        grades[:, 0] = 1.0
        return listwise_loss(both, grades, torch.cat([torch.ones_like(kept[:, :1]), kept], dim=1))

    def _others(
        self, drawn: TeacherBatch, cosine: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, K) places in the step of the other queries, -1 for none, and (B,) each query's positive document row."""
        count = self.params.column_queries
        others = np.full((len(drawn.queries), count), -1, dtype=np.int64)
        documents = drawn.lists.documents[:, 0].cpu().numpy()
        columns = drawn.lists.columns[:, 0].cpu().numpy()
        grades = [self.judgements.grades[int(query)] for query in drawn.queries]
        for place, (row, column) in enumerate(zip(documents, columns, strict=True)):
            order = np.argsort(-cosine[:, column], kind="stable").tolist()
            wrong = [one for one in order if int(row) not in grades[one]]
            near = count // 2
            chosen = wrong[:near] + rng.permutation(wrong[near:])[: count - near].tolist()
            others[place, : len(chosen)] = chosen
        return others, documents

    def _ask(self, drawn: TeacherBatch, documents: np.ndarray, asked: np.ndarray) -> Tensor:
        """(P, H) states of queries of the step read after documents of the step, or the other way round."""
        columns = [drawn.column[int(row)] for row in documents]
        pairs = (torch.tensor(part, device=self.device) for part in (asked, columns, documents))
        rows, segments = self.following(drawn.queries, *pairs)
        return ask(self.backbone, drawn.read, rows, *pad(segments, self.device))
