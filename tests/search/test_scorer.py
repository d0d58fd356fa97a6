"""The student at work: what it scores, and what it leaves on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.models.predictor import Predictor
from rabtriever.search.scorer import Scorer, exact_products, inner_products
from rabtriever.training.student_io import answer_direction, load_student, save_student


@pytest.fixture
def states(backbone: Backbone, query_ids, document_ids) -> tuple[Tensor, Tensor]:
    """Embeddings of the toy queries (12, 32) and of the documents (8, 32)."""
    queries, documents = (torch.from_numpy(backbone.encode(ids, 8)) for ids in (query_ids, document_ids))
    return queries, documents


@pytest.fixture(params=[3.0, 0.0], ids=["cosine", "paper"])
def scorer(request, backbone: Backbone, prompt: Prompt, states) -> Scorer:
    """A student with and without the cosine, none of whose weights is at its initial value."""
    backbone.configure(similarity=request.param)
    predictor = Predictor(32, 12, 5, request.param)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    predictor.standardise(*states, states[0] * 2 + 1)
    return Scorer(backbone, prompt, predictor, answer_direction(backbone, prompt))


def expected(scorer: Scorer, queries: Tensor, documents: Tensor) -> np.ndarray:
    """(Q, N) scores by the predictor's definition, one pair after another."""
    with torch.no_grad():
        rows = [
            [
                float(scorer.predictor(query, document) @ scorer.direction)
                + scorer.predictor.similarity * float(query @ document / (query.norm() * document.norm()))
                for document in documents
            ]
            for query in queries
        ]
    return np.array(rows)


def test_scores_are_the_predictor_on_every_pair(scorer: Scorer, states):
    """Mining and measuring rank by another function than the one trained."""
    score = scorer.against(states[1])
    wanted = expected(scorer, *states)
    np.testing.assert_allclose(score(states[0]), wanted, atol=1e-4)
    np.testing.assert_allclose(score(states[0][3:4]), wanted[3:4], atol=1e-4)
    assert np.abs(wanted - wanted.mean()).max() > 0.1, "the scores differ at all"


def test_saved_and_loaded(scorer: Scorer, states, backbone: Backbone, prompt: Prompt, tmp_path: Path):
    """A student comes back with other weights than it was trained to, or another shape."""
    save_student(tmp_path / "student", scorer.predictor, scorer.direction, {"teacher": "t" * 64})
    loaded, manifest = load_student(tmp_path / "student", backbone, prompt, "t" * 64)
    assert loaded.predictor.shape == scorer.predictor.shape and manifest.info == {"hidden": 12, "products": 5}
    assert loaded.predictor.similarity == scorer.predictor.similarity
    saved = scorer.predictor.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.predictor.state_dict().items())
    assert torch.equal(loaded.direction, scorer.direction)
    # where a tensor lies in memory may change the last digit of a product
    np.testing.assert_allclose(loaded.against(states[1])(states[0]), scorer.against(states[1])(states[0]), atol=1e-5)


def test_queries_are_encoded_alone(scorer: Scorer, toy):
    """A query is read as a document, or with what another segment of the prompt says."""
    texts = list(toy.queries.values())[:3]
    ids = [scorer.prompt.query.ids([text])[0] for text in texts]
    alone = np.concatenate([scorer.encoder.encode([one], 1) for one in ids])
    np.testing.assert_allclose(scorer.encode(texts), alone, atol=1e-5)
    with pytest.raises(TypeError, match="texts is 'it is dark'"):
        scorer.encode("it is dark")


def test_inner_products_are_the_same_on_either_device(monkeypatch):
    """A bi-encoder is timed on the processor beside a student on the GPU, or ranks by products of few digits."""
    queries, documents = (np.random.default_rng(0).normal(size=(rows, 6)).astype(np.float32) for rows in (3, 9))
    plain = inner_products(documents)(queries)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("rabtriever.search.scorer.default_device", lambda: torch.device("cpu"))
    moved = inner_products(documents)
    np.testing.assert_allclose(moved(queries), plain, rtol=1e-6, atol=1e-6)
    assert moved(queries).dtype == np.float32


def test_exact_products_for_a_while():
    """The scan of the index is computed with few digits, or all training after it slowly."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        with exact_products():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_one_query_and_few_documents_score_as_many_do(scorer: Scorer, states, monkeypatch):
    """A single search gives other scores than the same query in a run."""
    folded = scorer.fold(states[1])
    few = scorer.scores(states[0][:1], folded)
    monkeypatch.setattr("rabtriever.search.scorer.FEW_CELLS", 0)
    assert few == pytest.approx(scorer.scores(states[0][:1], folded), abs=1e-4)
    assert few == pytest.approx(scorer.scores(states[0], folded)[:1], abs=1e-4)
