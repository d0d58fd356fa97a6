"""The teacher with the query first: what is read, in training as at work, when the two segments change places."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever.core.settings import load_params
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams, template_texts
from rabtriever.models import reranker
from rabtriever.models.reranker import Reranker
from rabtriever.training.preference import PreferenceModule
from rabtriever.training.teacher import TeacherModule, TeacherParams
from research.definition import Trial, read_study
from tests.closure import ROOT


@pytest.fixture
def prompt(tokenizer: Any, prompt_params: PromptParams) -> Prompt:
    """The query first; the cue stands behind the document."""
    turned = {"order": "query_first", "query": "Need: {query}\n", "document": "Item: {document}\nUseful?"}
    return Prompt(tokenizer, dataclasses.replace(prompt_params, **turned), context=256)


@pytest.fixture
def expected(backbone: Backbone, prompt: Prompt, query_ids, document_ids) -> dict[str, torch.Tensor]:
    """States (Q, D, H) and logits (Q, D) of [query; document] read as one sequence, cosine (Q, D) of states alone."""
    backbone.configure(similarity=7.0)
    joined = [query + document for query in query_ids for document in document_ids]
    states = torch.from_numpy(backbone.encode(joined, 16)).reshape(len(query_ids), len(document_ids), -1)
    head = backbone.head_weight.detach()
    sides = [torch.from_numpy(backbone.encode(ids, 8)) for ids in (query_ids, document_ids)]
    cosine = torch.cosine_similarity(sides[0][:, None], sides[1][None], dim=-1)
    return {"states": states, "yes_no_logit": states @ (head[prompt.yes_id] - head[prompt.no_id]), "cosine": cosine}


@pytest.fixture
def arguments(backbone, prompt, judgements, query_ids, document_ids) -> tuple[Any, ...]:
    """What a training module takes; every term has a weight."""
    shipped = load_params(TeacherParams, "train_teacher", ROOT / "params.yaml")
    params = dataclasses.replace(shipped, queries=5, random_negatives=2, similarity=7.0, pointwise=1.0, dpo_steps=1)
    mined = (
        np.tile(judgements.positive_for_any[:2], (len(query_ids), 1)),
        np.tile(judgements.unjudged, (len(query_ids), 1)),
    )
    return backbone, prompt, judgements, query_ids, document_ids, mined, params, 0


@pytest.mark.parametrize("group", [1, 5, 32])
def test_annotation_reads_the_query_and_then_the_document(
    backbone, prompt, query_ids, document_ids, expected, monkeypatch, group
):
    """The order is another one than the settings say, pairs are mixed up, or the state is not the last one read."""
    monkeypatch.setattr(reranker, "PREFIX_BATCH", group)
    pairs = np.array([(q, d) for q in (0, 3, 11, 4) for d in (7, 1, 2)] + [(3, 7)])
    order = []
    for part in Reranker(backbone, prompt).annotate(query_ids, document_ids, pairs, 4):
        rows = tuple(pairs[part.pairs].T)
        np.testing.assert_allclose(part.states, expected["states"][rows], atol=2e-5)
        wanted = (expected["yes_no_logit"] + 7.0 * expected["cosine"])[rows]
        np.testing.assert_allclose(part.scores, wanted, atol=1e-4)
        order += part.pairs.tolist()
    assert sorted(order) == list(range(len(pairs)))


def test_training_is_on_the_scores_at_work(arguments, expected):
    """The teacher is trained in another order than it is used in, or on other pairs than it was given."""
    module, rng = TeacherModule(*arguments), np.random.default_rng(2)
    with torch.no_grad():
        queries, batch, column, prefix = module.batch(rng)
        found, cosine = module.yes_no_logit(queries, batch, prefix), module.cosine(queries, column, prefix)
    assert len(prefix.states) == len(queries) == 5, "queries are read once"
    for number, query in enumerate(queries):
        kept = batch.mask[number]
        rows = torch.tensor(list(column))[batch.columns[number]]
        assert torch.equal(rows[kept], batch.documents[number][kept])
        assert torch.allclose(found[number][kept], expected["yes_no_logit"][query, rows[kept]], atol=1e-4)
        assert torch.allclose(cosine[number], expected["cosine"][query, list(column)], atol=1e-4)
    assert not found[~batch.mask].any()


def test_every_term_reaches_the_backbone(arguments, backbone):
    """Queries read once are cut off from the loss: only what follows them would learn."""
    terms = TeacherModule(*arguments).losses(np.random.default_rng(0))
    assert set(terms) == {"pointwise", "yes_no_logit", "listwise", "agreement", "contrastive"}
    terms["yes_no_logit"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in backbone.parameters())


def test_the_reference_of_dpo_reads_in_the_same_order(arguments):
    """At its start the loss is log 2, unless the two models read different things."""
    found = PreferenceModule(*arguments).losses(np.random.default_rng(5))["dpo"]
    assert float(found.detach()) == pytest.approx(np.log(2), abs=1e-5)


def test_the_answer_follows_what_is_read_last(prompt, prompt_params):
    """The tokenizer is trained on an answer in a place where the model never gives one."""
    texts = list(template_texts(prompt.params, ["a", "b"], ["c"]))
    assert texts == ["Need: c\n", "Item: a\nUseful? no", "Item: b\nUseful? yes"]
    assert prompt.params.ordered("document", "query") == ("query", "document")
    assert prompt_params.ordered("document", "query") == ("document", "query")


def test_the_ablation_moves_the_cue_with_the_order():
    """The cue would stand in the middle, and the answer be asked for behind a bare document."""
    study = read_study("cpu", ROOT)
    assert {study.sets[name].backbone for name in study.ablate.sets} == {"small"}, "the templates are this backbone's"
    default, turned = (study.trial_settings(Trial("household", 7, name))["prompt"] for name in ("", "query_first"))
    assert default["query"].endswith("Helps:") and turned["document"].endswith("Helps:")
    assert (default["query"] + default["document"]).count("Helps:") == 1
    assert (turned["query"] + turned["document"]).count("Helps:") == 1
    assert (default["order"], turned["order"]) == ("document_first", "query_first")
