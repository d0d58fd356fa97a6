"""The document prior: its features by hand, and an index that has it against the sum written out."""

import math

import numpy as np
import pytest
import torch

from rabtriever.models import document_prior
from rabtriever.models.document_prior import PriorFeatures, PriorWeights, prior_features, prior_scores, with_prior
from rabtriever.models.predictor import Predictor, folded_scores

WIDTH = 4
# unit queries: 0 and 1 lie along the first axis, 2 along the second, 3 against the first
QUERIES = np.array([[2.0, 0, 0, 0], [0.5, 0, 0, 0], [0, 3.0, 0, 0], [-1.0, 0, 0, 0]], dtype=np.float32)
DOCUMENTS = np.array([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 4.0, 0]], dtype=np.float32)
GRADES = [{0: 2}, {0: 1, 1: 1}, {0: 1}, {1: 0}]
MEAN = np.array([0.25, 0.25, 0, 0])  # of the unit queries: ((1 + 1 - 1) / 4, 1 / 4)


def test_features_by_hand():
    """Grades do not weigh, a judgement of grade 0 counts, or long queries outweigh short ones."""
    found = prior_features(DOCUMENTS, QUERIES, GRADES)
    first = np.array([3.0, 1, 0, 0]) / math.sqrt(10) - MEAN  # (2 + 1) along the first axis, 1 along the second
    second = np.array([1.0, 0, 0, 0]) - MEAN
    wanted = [3 / 8 * first, 1 / 6 * second, np.zeros(4)]  # shrunk by n / (n + 5)
    np.testing.assert_allclose(found.centroids, wanted, atol=1e-6)
    np.testing.assert_allclose(found.popularity, [math.log(4), math.log(2), 0], atol=1e-6)
    assert {part.dtype for part in found} == {np.dtype(np.float32)}


def test_hubness_by_hand():
    """A document near to every query passes for one near to none; or one near query counts as much as many."""
    near = math.exp(1 / 0.05)
    found = prior_features(DOCUMENTS, QUERIES, GRADES).hubness
    wanted = [
        0.05 * math.log((2 * near + 1 + 1 / near) / 4),  # cosines 1, 1, 0, -1
        0.05 * math.log((near + 3) / 4),  # 0, 0, 1, 0
        0.0,
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 7, 8, 10**6])
def test_hubness_in_blocks(monkeypatch, cells):
    """In a large corpus the documents after the first block have the hubness of others, or none."""
    rng = np.random.default_rng(0)
    documents, queries = rng.standard_normal((9, WIDTH)), rng.standard_normal((4, WIDTH))
    whole = prior_features(documents, queries, [{}] * 4).hubness
    monkeypatch.setattr(document_prior, "BLOCK_CELLS", cells)
    np.testing.assert_allclose(prior_features(documents, queries, [{}] * 4).hubness, whole, atol=1e-6)
    assert len(set(np.round(whole, 5))) == 9


def test_hubness_of_some_queries(monkeypatch):
    """A million queries take hours; or a corpus has other features in each run, or a query counts twice."""
    rng = np.random.default_rng(1)
    documents, queries = rng.standard_normal((5, WIDTH)), rng.standard_normal((40, WIDTH))
    monkeypatch.setattr(document_prior, "BANK", 10)
    found, again, other = (prior_features(documents, queries, [{}] * 40, seed).hubness for seed in (0, 0, 1))
    np.testing.assert_array_equal(found, again)
    assert np.abs(found - other).max() > 1e-3
    monkeypatch.setattr(document_prior, "BANK", 40)
    whole = [prior_features(documents, queries, [{}] * 40, seed).hubness for seed in (0, 1)]
    np.testing.assert_allclose(*whole, atol=1e-6)


def features(count: int) -> PriorFeatures:
    """Features of so many documents, drawn."""
    rng = np.random.default_rng(2)
    parts = rng.standard_normal((count, WIDTH)), rng.standard_normal(count), rng.random(count)
    return PriorFeatures(*(part.astype(np.float32) for part in parts))


def test_the_layer_is_its_formula():
    """A term has the wrong sign or the weight of another, or a candidate has the terms of another row."""
    known, query, rows = features(5), np.array([0.6, 0, 0.8, 0]), np.array([4, 1])
    found = prior_scores(query, rows, known, PriorWeights(20.0, 3.0, 0.5))
    wanted = [20.0 * known.centroids[d] @ query + 0.5 * known.popularity[d] - 3.0 * known.hubness[d] for d in rows]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert prior_scores(query, rows, known, PriorWeights()).tolist() == [0, 0]


@pytest.mark.parametrize("products", [0, 3])
@pytest.mark.parametrize("weights", [PriorWeights(), PriorWeights(20.0, 3.0, 0.5), PriorWeights(0.0, 0.0, 2.0)])
def test_an_index_with_the_prior_adds_its_scores(products, weights):
    """The index ranks by another layer than the one that was fitted, or the student's own score has changed."""
    torch.manual_seed(4)
    predictor, known = Predictor(WIDTH, 6, products, 30.0), features(7)
    queries, documents, direction = torch.randn(3, WIDTH), torch.randn(7, WIDTH), torch.randn(WIDTH)
    asked, folded = predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction)
    plain = folded_scores(asked, folded).numpy()
    kept = [part.clone() for part in folded]
    found = folded_scores(asked, with_prior(folded, known, weights, 30.0)).numpy()
    for query, ours, theirs in zip(queries.numpy(), found, plain, strict=True):
        more = prior_scores(query / np.linalg.norm(query), np.arange(7), known, weights)
        np.testing.assert_allclose(ours, theirs + more, atol=1e-4)
    assert all(torch.equal(part, before) for part, before in zip(folded, kept, strict=True)), "a copy is changed"


def test_a_score_without_cosine_has_no_place_for_it():
    """The centroids are divided by zero, and every score is infinite."""
    predictor = Predictor(WIDTH, 6, 2, 0.0)
    folded = predictor.fold_documents(torch.randn(7, WIDTH), torch.randn(WIDTH))
    with pytest.raises(ValueError, match="weight of the cosine is 0: the document prior needs one above 0"):
        with_prior(folded, features(7), PriorWeights(1.0), 0.0)
