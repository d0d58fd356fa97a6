"""Gradient checkpointing: it may save memory, and change nothing else."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.lm.adapters import add_lora, tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.gradient_checkpointing import checkpointed, read_pairs
from rabtriever.lm.padding import pad
from rabtriever.models.reranker import ask, read_documents
from rabtriever.training.teacher import TeacherModule
from rabtriever.training.trainer import fit
from tests.language_models import small_bert
from tests.training.test_teacher import PARAMS

DOCUMENTS, QUERIES, ROWS = (
    [[5, 6, 7, 8, 9], [5, 6, 7], [4]],
    [[11, 12], [13, 14, 15], [16], [17, 18, 19, 20]],
    [0, 1, 1, 2],
)
TOLERANCE = 2e-5


@pytest.fixture(params=["qwen2", "bert"])
def build(request, make_backbone, tokenizer):
    """Builds a backbone of a family; the same weights each time, no dropout."""

    def make() -> Backbone:
        if request.param == "qwen2":
            return make_backbone()
        torch.manual_seed(0)
        model = small_bert(len(tokenizer))
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return Backbone(model, tokenizer)

    return make


def adapted(backbone: Backbone, rank: int) -> Backbone:
    """With adapters that are past their first step, when half of them has no gradient."""
    if rank:
        add_lora(backbone, rank)
        torch.manual_seed(3)
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.1)
    return backbone.train()


def gradients(module: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of all that has one."""
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys() and len(found) > 5
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        assert torch.allclose(found[name] / scale, value / scale, atol=1e-4), name


def counted(backbone: Backbone) -> list[int]:
    """One entry for each time that the first layer is computed."""
    calls: list[int] = []
    first = next(m for m in backbone.modules() if type(m).__name__ in ("Qwen2MLP", "BertIntermediate"))
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize(("pooling", "attention"), [("last", "causal"), ("mean", "causal"), ("mean", "segment")])
@pytest.mark.parametrize("rank", [0, 4])
def test_pairs_read_as_one_sequence(build, rank, pooling, attention):
    """States or gradients of the teacher are others than with the cache; or the layers keep all they ever did."""
    backbone = adapted(build(), rank)
    backbone.configure(pooling=pooling, attention=attention)
    calls = counted(backbone)
    prefix = read_documents(backbone, *pad(DOCUMENTS))
    old = ask(backbone, prefix, torch.tensor(ROWS), *pad(QUERIES)), prefix.states
    expected = gradients(backbone, old[0].pow(2).sum() + old[1].pow(3).sum())
    with checkpointed(backbone):
        calls.clear()
        new = read_pairs(backbone, DOCUMENTS, QUERIES, ROWS)
        passes = len(calls)
        assert 1 < passes <= len(QUERIES)
        found = gradients(backbone, new.asked.pow(2).sum() + new.states.pow(3).sum())
        assert len(calls) == 2 * passes, "the layer is computed again for the gradients"
    for one, other in zip(old, new, strict=True):
        assert torch.allclose(one, other, atol=TOLERANCE)
    assert_alike(found, expected)
    read_documents(backbone, *pad(DOCUMENTS))  # the cache is back


@pytest.mark.parametrize("rank", [0, 4])
def test_the_teacher_learns_the_same(build, prompt, judgements, query_ids, document_ids, rank):
    """A term of the loss is lost, or candidates and queries are mixed up, as soon as memory is saved."""
    rows = np.full((len(judgements.query_ids), 3), -1)
    for query, grades in enumerate(judgements.grades):
        rows[query, :2] = [row for row in judgements.positive_for_any if row not in grades][:2]
    weights = {"similarity": 3.0, "pointwise": 0.7, "listwise": 0.5, "listwise_score": 1.5, "contrastive": 0.3}
    found = []
    for on in (False, True):
        params = dataclasses.replace(PARAMS, gradient_checkpointing=on, **weights)
        backbone = adapted(build(), rank)
        with checkpointed(backbone) if on else torch.enable_grad():
            module = TeacherModule(backbone, prompt, judgements, query_ids, document_ids, rows, params, seed=0)
            terms = module.losses(np.random.default_rng(2))
            found.append((terms, gradients(module, torch.stack(list(terms.values())).sum())))
    (without, expected), (with_it, gradient) = found
    assert without.keys() == with_it.keys() and len(without) == 4
    for name, term in without.items():
        assert torch.allclose(term, with_it[name], atol=1e-4), name
    assert_alike(gradient, expected)


def test_the_cache_works_in_evaluation(backbone):
    """Mining in the middle of such a training reads no documents."""
    with checkpointed(backbone.train()):
        backbone.eval()
        with torch.no_grad():
            prefix = read_documents(backbone, *pad(DOCUMENTS))
            asked = ask(backbone, prefix, torch.tensor(ROWS), *pad(QUERIES))
        expected = read_pairs(backbone, DOCUMENTS, QUERIES, ROWS)
        assert torch.allclose(asked, expected.asked, atol=TOLERANCE)


def test_a_fit_under_checkpointing(make_backbone, prompt, judgements, query_ids, document_ids):
    """The trainer's steps differ from those without it by more than the order of sums."""
    mined = np.tile(judgements.positive_for_any[:3], (len(judgements.query_ids), 1))
    trained = []
    for on in (False, True):
        params = dataclasses.replace(PARAMS, steps=3, gradient_checkpointing=on)
        model = make_backbone()
        with tuning(model, 0, on):
            fit(TeacherModule(model, prompt, judgements, query_ids, document_ids, mined, params, seed=0), "teacher")
        trained.append(model.encode(document_ids, 8))
    before = make_backbone().encode(document_ids, 8)
    assert np.abs(trained[0] - trained[1]).max() < 1e-3 < 0.02 < np.abs(trained[0] - before).max()
