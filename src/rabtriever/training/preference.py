"""DPO for the reranker: the right answer is preferred to the wrong one, against the fine-tuned teacher as reference.

LaHoRe (arXiv 2412.16615) trains its reranker so; of a pair the preferred answer is `yes` for a relevant document and
`no` for another, and log pi(preferred) - log pi(rejected) is the yes/no logit with its sign (Rafailov et al. 2023).
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rabtriever.training.losses import preference_loss
from rabtriever.training.teacher import TeacherModule


class PreferenceModule(TeacherModule):
    """Goes on from a fine-tuned teacher with DPO, on candidates drawn as before.

    The arguments are those of TeacherModule; `backbone` is the fine-tuned teacher, or its reader where it has one, and
    a frozen copy of it is the reference. The schedule is `dpo_steps` long.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.steps, self.learning_rate = self.params.dpo_steps, self.params.dpo_learning_rate
        self.reference = copy.deepcopy(self.backbone).requires_grad_(False)
        self.reference.reference = True

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The preference loss of one batch, and the terms that keep the states useful to the student."""
        queries, batch, column, prefix = self.batch(rng)
        yes_no_logit = self.yes_no_logit(queries, batch, prefix)
        with torch.no_grad():
            reader = self.reference.eval()
            reference = self.yes_no_logit_of(reader, queries, batch, self.read(reader, queries, column))
        terms = {"dpo": preference_loss(yes_no_logit, reference, batch.grades, batch.eligible, self.params.dpo_beta)}
        if self.encoder is None and self.params.contrastive > 0:
            cosine = self.cosine(queries, column, prefix)
            terms["contrastive"] = self.contrastive(queries, batch, column, cosine)
        return terms
