"""Groups of like length: they cost least, and nothing computed in them differs from what is computed at once."""

import itertools

import numpy as np
import pytest
import torch

from rabtriever.lm import padding
from rabtriever.lm.padding import groups_by_length, in_order, pad
from rabtriever.models.reranker import ask, read_documents

TOLERANCE = 2e-5  # float32, states of unit variance; the groups change the shapes, and so the order of sums


def cost(lengths: list[int], parts: list[list[int]], price: int) -> int:
    return sum(max(lengths[row] for row in rows) * len(rows) + price for rows in parts)


@pytest.mark.parametrize("price", [1, 5, 20, 1000])
def test_no_other_groups_cost_less(price):
    """Half of the work is padding still, or a batch falls into so many passes that they cost more than the padding."""
    for seed in range(20):
        lengths = np.random.default_rng(seed).integers(1, 12, size=7).tolist()
        groups = groups_by_length(pad([[5] * length for length in lengths])[1], price)
        parts = [rows.tolist() for rows, _ in groups]
        assert sorted(itertools.chain(*parts)) == list(range(7)), "every row once"
        assert [longest for _, longest in groups] == [max(lengths[row] for row in rows) for rows in parts]
        order = sorted(range(7), key=lambda row: lengths[row])
        cuts = itertools.chain.from_iterable(itertools.combinations(range(1, 7), count) for count in range(7))
        others = [[order[a:b] for a, b in itertools.pairwise((0, *cut, 7))] for cut in cuts]
        assert cost(lengths, parts, price) == min(cost(lengths, other, price) for other in others)


def test_the_order_is_kept():
    """A text gets the state of another one."""
    ids, mask = pad([[5] * length for length in (3, 9, 1, 9, 4, 3)])
    groups = groups_by_length(mask, 1)
    assert len(groups) > 2
    assert torch.equal(in_order([mask[rows].sum(1) for rows, _ in groups], groups), mask.sum(1))
    assert len(groups_by_length(mask, 1000)) == 1


@pytest.mark.parametrize("attention", ["causal", "segment"])
def test_reading_in_groups_is_reading_at_once(backbone, query_ids, document_ids, monkeypatch, attention):
    """A group sees other padding, other positions or another document than the whole batch did, or no gradient."""
    backbone.configure(attention=attention)
    documents, queries = pad(document_ids), pad(query_ids)
    rows = torch.arange(len(query_ids)) % len(document_ids)
    found = {}
    for price in (1, 1_000_000):
        monkeypatch.setattr(padding, "CPU_TOKENS", price)
        backbone.zero_grad()
        prefix = read_documents(backbone, *documents)
        asked, alone = ask(backbone, prefix, rows, *queries), backbone.embed(*queries)
        (asked[:, 0].sum() + prefix.states[:, 1].sum() + alone[:, 2].sum()).backward()
        gradient = torch.cat([weight.grad.flatten() for weight in backbone.parameters()])
        found[price] = [part.detach() for part in (asked, alone, prefix.states, gradient)]
    groups, once = found.values()
    for grouped, whole in zip(groups, once, strict=True):
        assert torch.allclose(grouped, whole, atol=TOLERANCE * max(1.0, float(whole.abs().max())))
