"""Losses against closed forms: direction, scale, masking and where the gradient goes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rabtriever.lm.answer import yes_no_logit
from rabtriever.models.predictor import spread
from rabtriever.training.losses import (
    embedding_mse,
    forward_kl,
    in_batch_loss,
    listwise_loss,
    reranker_loss,
    reverse_kl,
)

STUDENT, TEACHER = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
LOGITS = st.lists(
    st.tuples(*[st.floats(-20, 20, width=32)] * 2, st.booleans()), min_size=1, max_size=8
)  # student, teacher, is masked


def _columns(rows):
    student, teacher, masked = zip(*rows, strict=True)
    return torch.tensor(student, dtype=torch.float64), torch.tensor(teacher, dtype=torch.float64), ~torch.tensor(masked)


def test_reverse_kl_is_the_reverse_one():
    """Student and teacher swapped: the student would spread over everything the teacher finds possible (by hand)."""
    assert float(reverse_kl(STUDENT, TEACHER)) == pytest.approx(0.36806, abs=5e-6)
    assert float(reverse_kl(TEACHER, STUDENT)) == pytest.approx(0.51083, abs=5e-6)


def test_reverse_kl_averages_over_rows():
    """A sum instead of a mean makes the weight of the term depend on the batch size."""
    both = reverse_kl(torch.stack([STUDENT, TEACHER]), torch.stack([TEACHER, TEACHER]))
    assert float(both) == pytest.approx(0.36806 / 2, abs=5e-6)


def test_reverse_kl_stands_a_certain_teacher():
    """Logits hundreds apart overflow when probabilities are taken before logarithms."""
    student = torch.tensor([0.0, 500.0], requires_grad=True)
    loss = reverse_kl(student, torch.tensor([500.0, 0.0]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(500.0) and torch.isfinite(student.grad).all()


@given(LOGITS, st.floats(-50, 50, width=32), st.floats(-50, 50, width=32))
def test_reverse_kl_properties(rows, shift, other):
    """Below zero, not zero on equal sides, or moved by a constant: no divergence."""
    student, teacher, _ = _columns(rows)
    value = float(reverse_kl(student, teacher))
    assert value >= -1e-12
    assert float(reverse_kl(student, student.clone())) == pytest.approx(0, abs=1e-12)
    assert float(reverse_kl(student + shift, teacher + other)) == pytest.approx(value, abs=1e-9)


@given(LOGITS.filter(lambda rows: not all(masked for _, _, masked in rows)))
def test_reverse_kl_mask_is_the_sub_list(rows):
    """Padding takes probability from the candidates, or brings NaN into the gradient."""
    student, teacher, mask = _columns(rows)
    student.requires_grad_()
    value = reverse_kl(student, teacher, mask)
    value.backward()
    plain = student.detach()[mask].requires_grad_()
    expected = reverse_kl(plain, teacher[mask])
    expected.backward()
    assert float(value.detach()) == pytest.approx(float(expected.detach()), abs=1e-9)
    assert torch.allclose(student.grad[mask], plain.grad, atol=1e-9)
    assert not student.grad[~mask].any()


def test_reverse_kl_of_an_empty_row_is_nothing():
    """A query without candidates turns the loss of the whole batch into NaN."""
    student = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    loss = reverse_kl(student, torch.tensor([[1.0, 0.0, 0.0]] * 2), mask)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_reverse_kl_gradient():
    """The student is pushed away from the teacher, or the teacher is trained (p (log p/q - KL), by hand)."""
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    reverse_kl(student, teacher).backward()
    assert student.grad.tolist() == pytest.approx([0.19775, -0.19775], abs=5e-6)
    assert teacher.grad is None


def test_embedding_mse_gradient():
    """A factor lost, a scale applied twice, or a gradient into the teacher's states."""
    predicted = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    target = torch.tensor([[0.0, 4.0], [3.0, 1.0]], requires_grad=True)
    scale = torch.tensor([1.0, 2.0])
    loss = embedding_mse(predicted, target, scale)
    loss.backward()
    assert float(loss.detach()) == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert torch.allclose(predicted.grad, 2 * (predicted - target).detach() / scale**2 / 4)
    assert target.grad is None


def test_embedding_mse_of_the_mean_is_one():
    """The weight of the term means something else on a backbone whose states are a thousand times larger."""
    for size in (0.01, 1.0, 1000.0):
        target = torch.randn(4000, 5) * torch.tensor([1.0, 2, 3, 4, 5]) * size + 7 * size
        assert float(embedding_mse(target.mean(0), target, target.std(0))) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("documents", [1, 2, 7])
def test_in_batch_loss_of_equal_scores(documents):
    """The sum runs over something other than the documents of the batch."""
    loss = in_batch_loss(torch.full((3, documents), 0.7), torch.zeros(3, dtype=int), torch.zeros(3, documents).bool())
    assert float(loss) == pytest.approx(math.log(documents), abs=1e-6)


def test_in_batch_loss_closed_form():
    """A blocked document counts as a negative, or a blocked target is left out (softmax over 0 and log 2, by hand)."""
    scores = torch.tensor([[0.0, math.log(2), 50.0]], requires_grad=True)
    loss = in_batch_loss(scores, torch.tensor([0]), torch.tensor([[True, False, True]]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(3), abs=1e-6)
    assert scores.grad[0].tolist() == pytest.approx([1 / 3 - 1, 2 / 3, 0], abs=1e-6)


def test_reranker_loss_closed_form():
    """Many negatives drown the positive, or padding counts as a negative (by hand)."""
    scores = torch.tensor([[2.0, -1.0, 0.5, 9.0]], requires_grad=True)
    grades, mask = torch.tensor([[3.0, 0.0, 0.0, 0.0]]), torch.tensor([[True, True, True, False]])
    loss = reranker_loss(scores, grades, mask)
    loss.backward()
    negatives = (math.log1p(math.exp(-1)) + math.log1p(math.exp(0.5))) / 2
    assert float(loss.detach()) == pytest.approx((math.log1p(math.exp(-2)) + negatives) / 2, abs=1e-6)
    assert scores.grad[0, 0] < 0 < scores.grad[0, 1] and scores.grad[0, 3] == 0


def test_reranker_loss_of_an_undecided_teacher():
    """The scale of the loss: log 2 when yes and no are equally likely."""
    loss = reranker_loss(torch.zeros(2, 3), torch.tensor([[1.0, 0, 0], [2.0, 1, 0]]), torch.ones(2, 3).bool())
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)


def test_weakly_relevant_is_relevant():
    """A document of grade 1 is trained on as wrong, or others drown it (by hand: softplus of the wrong answer)."""
    scores, grades = torch.tensor([[2.0, -1.0, -1.0, -1.0]]), torch.tensor([[1, 0, 0, 0]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    wanted = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1))) / 2
    assert float(reranker_loss(scores, grades, mask)) == pytest.approx(wanted, abs=1e-6)


def test_listwise_loss_closed_form():
    """The grades are not shares of one, or padding takes part in the softmax (gradient: softmax - shares)."""
    scores = torch.tensor([[0.0, 0.0, 0.0, 50.0]], requires_grad=True)
    grades, mask = torch.tensor([[3.0, 1.0, 0.0, 9.0]]), torch.tensor([[True, True, True, False]])
    loss = listwise_loss(scores, grades, mask)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(3), abs=1e-6)
    assert scores.grad[0].tolist() == pytest.approx([1 / 3 - 0.75, 1 / 3 - 0.25, 1 / 3, 0], abs=1e-6)


def test_answer_score_is_the_log_ratio_of_the_answers():
    """The score has another meaning than log p(yes) - log p(no), which every threshold and margin relies on."""
    states, head = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(20, 8, dtype=torch.float64)
    log_p = torch.log_softmax(states @ head.T, dim=-1)
    assert torch.allclose(yes_no_logit(states, head, 4, 11), log_p[..., 4] - log_p[..., 11], atol=1e-12)


def test_forward_kl_is_the_teachers_expectation():
    """The reverse direction is computed: KL(teacher (.5, .5) || student (.9, .1)) is 0.51083, the reverse 0.36806."""
    student = torch.log(torch.tensor([[0.9, 0.1, 7.0]])).requires_grad_()
    teacher = torch.log(torch.tensor([[0.5, 0.5, 3.0]])).requires_grad_()
    loss = forward_kl(student, teacher, torch.tensor([[True, True, False]]))
    assert float(loss.detach()) == pytest.approx(0.51083, abs=1e-5)
    loss.backward()
    assert teacher.grad is None
    assert float(student.grad[0, 2]) == 0.0


def test_both_divergences_take_the_same_arguments():
    """One of them cannot stand where the other does: without a mask, or with rows that have no entry at all."""
    assert float(forward_kl(STUDENT, TEACHER)) == pytest.approx(0.51083, abs=5e-6)
    assert float(forward_kl(TEACHER, STUDENT)) == pytest.approx(float(reverse_kl(STUDENT, TEACHER)), abs=1e-7)
    student = torch.zeros(2, 3, requires_grad=True)
    loss = forward_kl(student, torch.tensor([[1.0, 0.0, 0.0]] * 2), torch.tensor([[True] * 3, [False] * 3]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(student.grad).all()


def test_spread_of_a_dimension_that_hardly_moves():
    """Noise of a dimension that is nearly constant is divided by next to nothing, and outweighs all others."""
    moves = torch.tensor([[-1.0], [1.0]]).repeat(50, 1)
    states = torch.cat([moves, 3 * moves, 1e-5 * moves], dim=1)
    assert spread(states).tolist() == pytest.approx([1.0, 3.0, 0.01 * 4 / 3], abs=1e-5)
    assert float(spread(torch.ones(4, 2)).min()) > 0


def test_listwise_loss_is_the_mean_over_queries():
    """A query of many or of high grades outweighs the others (by hand: each query's own shares)."""
    scores = torch.tensor([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
    loss = listwise_loss(scores, torch.tensor([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.ones(2, 3).bool())
    first = math.log(math.e + 1 + 1 / math.e) - 0.75
    second = math.log(math.exp(0.5) + math.exp(2) + 1)
    assert float(loss) == pytest.approx((first + second) / 2, abs=1e-6)


def test_reranker_loss_of_one_side_alone():
    """A batch of positives or of negatives alone gives a loss that is not a number (by hand: half a softplus)."""
    score, one = torch.tensor([[2.0]]), torch.ones(1, 1).bool()
    assert float(reranker_loss(score, torch.tensor([[1.0]]), one)) == pytest.approx(math.log1p(math.exp(-2)) / 2)
    assert float(reranker_loss(score, torch.tensor([[0.0]]), one)) == pytest.approx(math.log1p(math.exp(2)) / 2)
