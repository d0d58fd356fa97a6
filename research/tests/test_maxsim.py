"""MaxSim against a loop over tokens: which tokens count, and that blocks and padding change nothing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from research import late_interaction
from research.late_interaction import maxsim


def sides(lengths: tuple[list[int], list[int]], pad_left: bool, extra: int = 0) -> list[torch.Tensor]:
    """Random token states and masks of queries and documents with these lengths, as `maxsim` takes them."""
    found = []
    for number, side in enumerate(lengths):
        width = max(side) + extra
        states = torch.full((len(side), width, 6), 1e4, dtype=torch.float64)  # what padding holds must not matter
        mask = torch.zeros(len(side), width, dtype=torch.int64)
        for row, length in enumerate(side):
            generator = torch.Generator().manual_seed(100 * number + row)
            part = slice(width - length, width) if pad_left else slice(length)
            states[row, part] = torch.randn(length, 6, dtype=torch.float64, generator=generator)
            mask[row, part] = 1
        found += [states, mask]
    return found


def reference(queries, query_mask, documents, document_mask) -> torch.Tensor:
    """The definition, token by token."""
    scores = torch.zeros(len(queries), len(documents), dtype=queries.dtype)
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            for token in query[query_mask[q].bool()]:
                against = document[document_mask[d].bool()]
                scores[q, d] += torch.nn.functional.cosine_similarity(token[None], against, dim=-1).max()
    return scores


LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def test_maxsim_by_hand():
    """The mean, the dot product, or the best query token of each document token is taken instead (1 + 0.6)."""
    query = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    document = torch.tensor([[[5.0, 0.0], [0.8, 0.6], [-1.0, 0.0]]])
    found = maxsim(query, torch.ones(1, 2), document, torch.ones(1, 3))
    assert found.tolist() == [[pytest.approx(1.6)]]
    without = maxsim(query, torch.tensor([[0, 1]]), document, torch.tensor([[1, 0, 1]]))
    assert without.tolist() == [[pytest.approx(0.0)]]


@given(LENGTHS, LENGTHS, st.booleans(), st.integers(0, 3))
def test_maxsim_is_its_definition(queries, documents, pad_left, extra):
    """Padding on either side wins a token's maximum, counts as a token, or more of it changes the score."""
    given_sides = sides((queries, documents), pad_left, extra)
    expected = reference(*sides((queries, documents), pad_left=False))
    assert torch.allclose(maxsim(*given_sides), expected, atol=1e-12)


def test_a_negative_maximum_is_kept():
    """A document unlike every token of a query scores zero, because padding does."""
    found = maxsim(torch.ones(1, 1, 2), torch.ones(1, 1), -torch.ones(1, 3, 2), torch.tensor([[1, 0, 0]]))
    assert found.tolist() == [[pytest.approx(-1.0)]]


@pytest.mark.parametrize("cells", [1, 40, 10**6])
def test_blocks_change_neither_scores_nor_gradients(monkeypatch, cells):
    """The last block is lost, or documents of different blocks are not comparable."""
    arguments = sides(([3, 2], [1, 4, 2, 5, 3]), pad_left=False)
    states = [arguments[0].requires_grad_(), arguments[2].requires_grad_()]
    whole = maxsim(*arguments)
    expected = torch.autograd.grad(whole.pow(2).sum(), states)
    monkeypatch.setattr(late_interaction, "CELLS", cells)
    found = maxsim(*arguments)
    assert torch.allclose(found, whole, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found.pow(2).sum(), states), expected, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_only_the_winning_tokens_have_gradients():
    """Every token of a document is pulled along, or padding gets NaN."""
    arguments = sides(([2], [4]), pad_left=False, extra=2)
    query, document = arguments[0].requires_grad_(), arguments[2].requires_grad_()
    maxsim(*arguments).sum().backward()
    cosine = torch.nn.functional.cosine_similarity(query[0, :2, None], document[0, None, :4], dim=-1)
    winners = set(cosine.argmax(1).tolist())
    moved = {token for token in range(6) if document.grad[0, token].abs().sum() > 0}
    assert moved == winners and torch.isfinite(document.grad).all()
    assert not query.grad[0, 2:].any()
