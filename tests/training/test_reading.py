"""The reader: what it reads, what it is trained on, and that nothing else of the teacher moves."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models.reranker import Reranker, ask, read_documents
from rabtriever.training.losses import listwise_loss
from rabtriever.training.model_io import READER, open_teacher, save_model
from rabtriever.training.preference import PreferenceModule
from rabtriever.training.reading import ReaderModule
from rabtriever.training.trainer import fit
from tests.training.test_teacher import PARAMS, divergence

SETTINGS = {
    "similarity": 3.0,
    "agreement": 0.5,
    "unlabelled": 1,
    "listwise": 2.0,
    "column": 1.5,
    "column_queries": 3,
    "reader_steps": 40,
    "queries": 6,
}


@pytest.fixture(params=["document_first", "query_first"])
def prompt(request, tokenizer: Any, prompt_params) -> Prompt:
    """Both orders of the segments."""
    return Prompt(tokenizer, dataclasses.replace(prompt_params, order=request.param), context=256)


@pytest.fixture
def reader(backbone: Backbone) -> Backbone:
    """A copy of the teacher, somewhat changed."""
    found = copy.deepcopy(backbone)
    with torch.no_grad():
        for weight in found.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return found


@pytest.fixture
def make_module(backbone, reader, prompt, judgements, query_ids, document_ids):
    """A module over the reader, beside the frozen teacher."""
    mined = (
        np.tile(judgements.positive_for_any[:3], (len(query_ids), 1)),
        np.tile(judgements.unjudged, (len(query_ids), 1)),
    )

    def make(kind: type = ReaderModule, **changes) -> ReaderModule:
        params = dataclasses.replace(PARAMS, **{**SETTINGS, **changes})
        return kind(reader, prompt, judgements, query_ids, document_ids, mined, params, seed=0, encoder=backbone)

    return make


def read(backbone: Backbone, reader: Backbone, prompt: Prompt, document: list[int], query: list[int]) -> torch.Tensor:
    """(H,) state of the second segment read by the reader after the first one read by the teacher."""
    first, second = prompt.params.ordered(document, query)
    with torch.no_grad():
        prefix = read_documents(backbone, *pad([first]))
        return ask(reader, prefix, torch.tensor([0]), *pad([second]))[0]


def test_annotation_reads_with_the_reader_what_follows(backbone, reader, prompt, query_ids, document_ids):
    """States are the teacher's own, or the answer is read off another head than the reader's."""
    pairs = np.array([[0, 1], [3, 0], [5, 7]])
    backbone.configure(yes_no_logit=0.5, similarity=4.0)
    cosine = [torch.from_numpy(backbone.encode(ids, 8)) for ids in (query_ids, document_ids)]
    head = reader.head_weight[prompt.yes_id] - reader.head_weight[prompt.no_id]
    for part in Reranker(backbone, prompt, reader).annotate(query_ids, document_ids, pairs, 2):
        for place, state, score in zip(*part, strict=True):
            query, document = pairs[place]
            wanted = read(backbone, reader, prompt, document_ids[document], query_ids[query])
            near = torch.cosine_similarity(cosine[0][query], cosine[1][document], dim=0)
            np.testing.assert_allclose(state, wanted, atol=2e-5)
            assert float(score) == pytest.approx(float(0.5 * wanted @ head.detach() + 4.0 * near), abs=1e-4)
    assert not np.allclose(state, read(backbone, backbone, prompt, document_ids[document], query_ids[query]), atol=1e-2)


def test_every_term_is_of_the_readers_yes_no_logit(make_module, backbone, reader, prompt, query_ids, document_ids):
    """The reader is trained on other scores than it gives at work, or against the wrong queries of a document."""
    module = make_module()
    seen, plain = [], module._ask
    module._ask = lambda drawn, documents, asked: (
        seen.append((drawn, documents, asked)) or plain(drawn, documents, asked)
    )
    terms = module.losses(np.random.default_rng(3))
    assert set(terms) == {"pointwise", "listwise", "agreement", "column"}
    drawn, documents, asked = seen[0]
    head = (reader.head_weight[prompt.yes_id] - reader.head_weight[prompt.no_id]).detach()

    def yes_no_logit(query: int, document: int) -> float:
        return float(read(backbone, reader, prompt, document_ids[document], query_ids[query]) @ head)

    losses = []
    for place, query in enumerate(drawn.queries):
        right = int(drawn.lists.documents[place, 0])
        others = [int(drawn.queries[one]) for row, one in zip(documents, asked, strict=True) if row == right]
        assert all(right not in module.judgements.grades[one] for one in others) and query not in others
    owners = [int(row) for row in drawn.lists.documents[:, 0]]
    start = 0
    for place, query in enumerate(drawn.queries):
        wrong = [one for one in drawn.queries if owners[place] not in module.judgements.grades[int(one)]]
        count = min(3, len(wrong))
        part = [int(drawn.queries[one]) for one in asked[start : start + count]]
        assert len(set(part)) == count and list(documents[start : start + count]) == [owners[place]] * count
        start += count
        scores = [yes_no_logit(int(query), owners[place]), *(yes_no_logit(one, owners[place]) for one in part)]
        losses.append(float(-torch.log_softmax(torch.tensor(scores), 0)[0]))
    assert start == len(asked)
    assert float(terms["column"].detach()) == pytest.approx(1.5 * np.mean(losses), abs=1e-3)
    scores = torch.zeros(drawn.lists.mask.shape)
    for row, column in drawn.lists.mask.nonzero().tolist():
        scores[row, column] = yes_no_logit(int(drawn.queries[row]), int(drawn.lists.documents[row, column]))
    wanted = 2.0 * listwise_loss(scores, drawn.lists.grades, drawn.lists.eligible)
    assert float(terms["listwise"].detach()) == pytest.approx(float(wanted), abs=1e-3)
    near = module.alone(drawn.queries, drawn.column, drawn.read).detach().gather(1, drawn.lists.columns)
    wanted = 0.5 * divergence(scores, near, drawn.lists.mask)
    assert float(terms["agreement"].detach()) == pytest.approx(wanted, abs=1e-3)


def test_the_nearest_wrong_queries_are_among_the_others(make_module):
    """Random queries are easy to tell apart: the reader learns nothing from them."""
    module, rng = make_module(column_queries=2), np.random.default_rng(0)
    drawn = module.batch(rng)
    cosine = rng.normal(size=(len(drawn.queries), len(drawn.column)))
    others, documents = module._others(drawn, cosine, rng)
    for place, row in enumerate(documents):
        wrong = [n for n, query in enumerate(drawn.queries) if int(row) not in module.judgements.grades[int(query)]]
        nearest = max(wrong, key=lambda one, row=row: cosine[one, drawn.column[int(row)]])
        assert others[place, 0] == nearest and set(others[place]) <= set(wrong)


def test_only_the_reader_learns(make_module, backbone, reader):
    """The teacher's states move after the bi-encoder was averaged in, so that all that came before is lost."""
    module = make_module()
    before = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    torch.stack(list(module.losses(np.random.default_rng(0)).values())).sum().backward()
    assert all(weight.grad is None for weight in backbone.parameters())
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in reader.parameters())
    first = sum(float(term.detach()) for term in module.losses(np.random.default_rng(9)).values())
    fit(module, "reader")
    assert sum(float(term.detach()) for term in module.losses(np.random.default_rng(9)).values()) < first
    assert all(torch.equal(before[name], weight) for name, weight in backbone.state_dict().items())
    assert not backbone.reference, "annotations keep float32"


def test_preferences_are_the_readers(make_module, backbone, reader):
    """DPO moves the states that the student was promised, or compares with a reference that reads something else."""
    module = make_module(PreferenceModule, dpo_steps=1)
    terms = module.losses(np.random.default_rng(5))
    assert set(terms) == {"dpo"} and float(terms["dpo"].detach()) == pytest.approx(np.log(2), abs=1e-5)
    terms["dpo"].backward()
    assert all(weight.grad is None for weight in backbone.parameters())
    assert any(weight.grad is not None for weight in reader.parameters())


def test_a_document_that_is_right_for_all_has_no_wrong_query(make_module, judgements):
    """A step in which nothing can be compared stops the training."""
    module = make_module()
    module.judgements = dataclasses.replace(judgements, grades=[dict.fromkeys(range(8), 1) for _ in judgements.grades])
    assert float(module.losses(np.random.default_rng(0))["column"].detach()) == 0.0


def test_saved_and_opened(backbone, reader, prompt, prompt_params, query_ids, document_ids, tmp_path):
    """The teacher comes back without its reader, and answers differently."""
    params = dataclasses.replace(prompt_params, order=prompt.params.order)
    pairs = np.array([[0, 1], [2, 3]])
    wanted = [part.scores for part in Reranker(backbone, prompt, reader).annotate(query_ids, document_ids, pairs, 2)]
    for name, apart in (("with", {READER: reader}), ("without", None)):
        save_model(tmp_path / name, "teacher", backbone, prompt, {"data": "d" * 64}, apart)
        opened = open_teacher(tmp_path / name, params, "d" * 64)
        assert (opened.reader is opened.backbone) == (apart is None)
        at_work = Reranker(opened.backbone, opened.prompt, opened.reader)
        found = [part.scores for part in at_work.annotate(query_ids, document_ids, pairs, 2)]
        assert np.allclose(np.concatenate(found), np.concatenate(wanted), atol=1e-5) == (apart is not None)


def test_a_reader_of_adapters(backbone, reader, make_module):
    """The adapters are trained beside the wrong weights, or left in the model that is saved."""
    before = {name: weight.clone() for name, weight in reader.state_dict().items()}
    with tuning(reader, 4):
        module = make_module(lora_rank=4, reader_steps=2)
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        assert len(trained) == 2 * 7 * 2
        fit(module, "reader")
    after = reader.state_dict()
    assert after.keys() == before.keys() and any(not torch.equal(before[name], after[name]) for name in before)
