"""Losses: pure functions of tensors. Log-probabilities and divergences are in nats.

Reverse KL here is the student's expectation, KL(student || teacher) = sum_x p_student (log p_student - log p_teacher):
it punishes the student for putting mass where the teacher has none (Rabtriever, arXiv 2604.23336).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(student || teacher) over the last dimension, averaged over the others.

    Args:
        student_logits: (..., K) unnormalised log-probabilities; gradients flow here.
        teacher_logits: (..., K); treated as constant.
        mask: (..., K) bool, False where an entry does not take part; None for all.

    Returns:
        Scalar, nats: zero where the distributions agree, unchanged when a constant is added to either side's logits.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, mask)
    return (student.exp() * (student - teacher)).sum(-1).mean()


def forward_kl(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student), otherwise as `reverse_kl`: it asks for mass wherever the teacher has some."""
    student, teacher = _log_probabilities(student_logits, teacher_logits, mask)
    return (teacher.exp() * (teacher - student)).sum(-1).mean()


def _log_probabilities(student_logits: Tensor, teacher_logits: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Both sides normalised; 0 on both, so without a difference, where an entry does not take part."""
    sides = student_logits, teacher_logits.detach()
    if mask is None:
        student, teacher = (F.log_softmax(logits, dim=-1) for logits in sides)
    else:  # filled again afterwards: -inf - -inf is not a number
        student, teacher = (
            F.log_softmax(logits.masked_fill(~mask, float("-inf")), dim=-1).masked_fill(~mask, 0.0) for logits in sides
        )
    return student, teacher


def embedding_mse(predicted: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """Mean squared error per dimension, each dimension divided by the target's spread.

    A predictor that always gives the mean target scores about 1 on every backbone: one weight means the same on each.

    Args:
        predicted: (..., H).
        target: (..., H); treated as constant.
        scale: (H,) standard deviation of the targets.
    """
    return (((predicted - target.detach()) / scale) ** 2).mean()


def in_batch_loss(scores: Tensor, target: Tensor, blocked: Tensor) -> Tensor:
    """Cross-entropy of each query's target among the scores of the batch (InfoNCE).

    Args:
        scores: (B, D) similarities over temperature.
        target: (B,) index of each query's positive.
        blocked: (B, D) bool, True for documents that are not negatives; all but the target are left out of the sum.
    """
    keep = F.one_hot(target, scores.shape[1]).bool()
    return F.cross_entropy(scores.masked_fill(blocked & ~keep, float("-inf")), target)


def reranker_loss(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Supervised fine-tuning on the answer: binary cross-entropy of yes against no.

    The mean is taken over positives and negatives apart, so that the number of negatives does not set the prior.

    Args:
        scores: (B, C) log p(yes) - log p(no).
        grades: (B, C) relevance grades; 1 and above is yes.
        mask: (B, C) bool, False for padding.
    """
    wanted = (grades > 0).to(scores.dtype)
    loss = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    positive = mask & (grades > 0)
    negative = mask & (grades <= 0)
    return (_masked_mean(loss, positive) + _masked_mean(loss, negative)) / 2


def listwise_loss(scores: Tensor, grades: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy between the softmax of the scores of one query's candidates and its grades, normalised to sum 1.

    Args:
        scores: (B, C).
        grades: (B, C); each row needs one grade above 0.
        mask: (B, C) bool, False for padding.
    """
    wanted = grades.to(scores.dtype) * mask
    wanted = wanted / wanted.sum(-1, keepdim=True)
    log_p = F.log_softmax(scores.masked_fill(~mask, float("-inf")), dim=-1).masked_fill(~mask, 0.0)
    return -(wanted * log_p).sum(-1).mean()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp(min=1)
