"""What training queries tell of documents: the terms as they are defined, and where they must not be used."""

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.models import document_terms
from rabtriever.models.document_terms import ScoreWeights, bi_encoder_scores, encoded_documents, remember, term_features

RNG = np.random.default_rng(0)
QUERIES, DOCUMENTS = RNG.normal(size=(6, 5)).astype(np.float32), RNG.normal(size=(4, 5)).astype(np.float32)
GRADES = [{0: 1}, {0: 2, 3: 1}, {3: 1}, {}, {0: 1}, {2: 0}]
WEIGHTS = ScoreWeights(yes_no_logit=1.0, similarity=8.0, memory=3.0, attraction=2.0, prior=0.5)


def test_memory_is_where_the_judged_queries_lie():
    """The mean is of the wrong queries, ignores grades, or one judgement counts as much as a hundred."""
    memory = remember(QUERIES, GRADES)
    asked = unit(QUERIES)
    assert memory.rows.tolist() == [0, 3] and memory.counts.tolist() == [3, 2]
    mean = unit((asked[0] + 2 * asked[1] + asked[4])[None])[0]
    np.testing.assert_allclose(memory.vectors[0], 3 / 8 * (mean - asked.mean(0)), atol=1e-6)
    features = term_features(DOCUMENTS, memory)
    assert not features.memory[[1, 2]].any() and features.prior.tolist() == pytest.approx(np.log([4, 1, 1, 3]))


@pytest.mark.parametrize("cells", [1, 12, 8_000_000])
def test_attraction_is_the_soft_maximum_over_all_queries(monkeypatch, cells):
    """A hub is punished by the wrong amount, or the last block of documents is lost."""
    monkeypatch.setattr(document_terms, "BLOCK_CELLS", cells)
    found = term_features(DOCUMENTS, remember(QUERIES, GRADES)).attraction
    near = unit(DOCUMENTS) @ unit(QUERIES).T
    np.testing.assert_allclose(found, 0.05 * np.log(np.exp(near / 0.05).mean(1)), atol=1e-5)


def test_known_is_the_sum_of_the_terms():
    """Anchors and document_bias give another score than the one that was fitted."""
    memory = remember(QUERIES, GRADES)
    terms, asked = term_features(DOCUMENTS, memory), unit(QUERIES)
    wanted = 8.0 * asked @ unit(DOCUMENTS).T + 3.0 * asked @ terms.memory.T - 2.0 * terms.attraction + 0.5 * terms.prior
    encoded = encoded_documents(DOCUMENTS, WEIGHTS, memory)
    np.testing.assert_allclose(bi_encoder_scores(QUERIES, encoded, 8.0), wanted, atol=1e-5)
    assert torch.equal(encoded.at(torch.tensor([[2, 0]])).document_bias, encoded.document_bias[[2, 0]][None])


def test_without_these_terms_it_is_the_cosine():
    """The paper's score, or a bi-encoder's, is changed by queries it should not know."""
    for memory in (None, remember(QUERIES, GRADES)):
        encoded = encoded_documents(DOCUMENTS, ScoreWeights(similarity=1.0), memory)
        np.testing.assert_allclose(
            bi_encoder_scores(QUERIES, encoded, 1.0), unit(QUERIES) @ unit(DOCUMENTS).T, atol=1e-6
        )


@pytest.mark.parametrize("name", ["memory", "attraction", "prior"])
def test_one_weight_alone_without_a_memory_is_refused(name):
    """A score whose terms are silently left out ranks differently than its teacher."""
    weights = ScoreWeights(similarity=1.0, **{name: 0.5})
    assert weights.need_memory and not ScoreWeights(similarity=1.0).need_memory
    with pytest.raises(ValueError, match="no memory of them"):
        encoded_documents(DOCUMENTS, weights)


def test_the_bank_is_a_sample(monkeypatch):
    """A million training queries make every index build quadratic."""
    monkeypatch.setattr(document_terms, "BANK", 4)
    bank = remember(QUERIES, GRADES).bank
    assert bank.shape == (4, 5) and len(np.unique(bank, axis=0)) == 4
    assert all(np.isclose(unit(QUERIES), row, atol=1e-6).all(1).any() for row in bank)


def test_another_corpus_keeps_what_is_known_of_its_documents():
    """A document is given the memory of another one, which had its row before."""
    memory = remember(QUERIES, GRADES)
    moved = memory.moved([-1, -1, 2, 1])
    assert moved.rows.tolist() == [1] and moved.counts.tolist() == [2]
    np.testing.assert_array_equal(moved.vectors, memory.vectors[1:])


def test_no_judgement_at_all():
    """A split without a positive stops with an error about shapes."""
    memory = remember(QUERIES, [{}] * 6)
    assert not term_features(DOCUMENTS, memory).memory.any()
