"""The predictor and its fold: the score of an index must be the score that was trained."""

import pytest
import torch

from rabtriever.lm.answer import yes_no_logit
from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.models.predictor import FoldablePredictor, folded_scores

WIDTH, HIDDEN = 12, 7


def trained(products: int, dtype: torch.dtype = torch.float64, similarity: float = 0.0) -> FoldablePredictor:
    """A predictor none of whose weights is at its initial value, standardised on samples."""
    predictor = FoldablePredictor(WIDTH, HIDDEN, products, similarity).to(dtype)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(torch.randn_like(parameter))
    spread = torch.linspace(0.1, 9, WIDTH, dtype=dtype)
    samples = [torch.randn(50, WIDTH, dtype=dtype) * spread + shift for shift in (3.0, -2.0, 5.0)]
    predictor.standardise(*samples)
    return predictor


def sides(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, EncodedDocuments, torch.Tensor]:
    """States of 5 queries, 23 documents with vectors and bias of their own, and the 2 answer rows of the head."""
    queries, states, document_vectors, head = (torch.randn(size, WIDTH, dtype=dtype) for size in (5, 23, 23, 2))
    return queries, EncodedDocuments(states, document_vectors, torch.randn(23, dtype=dtype)), head


@pytest.mark.parametrize(("products", "similarity"), [(0, 0.0), (3, 0.0), (0, 20.0), (3, 20.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_folded_equals_unfolded(products, similarity, dtype, tolerance):
    """The index ranks by another function than the one that was trained; tolerance relative to the largest score."""
    predictor, (queries, documents, head) = trained(products, dtype, similarity), sides(dtype)
    direction = head[0] - head[1]
    asked, against = queries[:, None], EncodedDocuments(*(part[None] for part in documents))
    direct = predictor.scores(asked, against, predictor(asked, against.states), direction)
    near = torch.nn.functional.normalize(queries, dim=-1) @ documents.document_vectors.T
    known = similarity * near + documents.document_bias if similarity else 0.0
    assert torch.allclose(direct, yes_no_logit(predictor(asked, against.states), head, 0, 1) + known)
    assert torch.allclose(predictor.all_scores(queries, documents, direction), direct)
    folded = predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction)
    limit = tolerance * float(direct.detach().abs().max())
    assert torch.allclose(folded_scores(*folded), direct, rtol=0, atol=limit)
    assert torch.allclose(folded_scores(*folded, block=4), direct, rtol=0, atol=limit)


def test_many_queries_are_scored_in_smaller_blocks(monkeypatch):
    """Ten thousand queries against a block of documents ask for more memory than any device has."""
    predictor, (queries, documents, head) = trained(3), sides()
    folded = predictor.fold_queries(queries, head[0]), predictor.fold_documents(documents, head[0])
    sizes, relu, whole = [], torch.relu, folded_scores(*folded)
    monkeypatch.setattr("rabtriever.models.predictor.FOLD_CELLS", 2 * 5 * HIDDEN + 3)
    monkeypatch.setattr(torch, "relu", lambda part: (sizes.append(part.numel()), relu(part))[1])
    torch.testing.assert_close(folded_scores(*folded), whole)
    assert max(sizes) == 2 * 5 * HIDDEN and len(sizes) == 12


def test_fold_sizes():
    """A document costs more than the m + n + 1 numbers that the index is sized for."""
    predictor, (queries, documents, head) = trained(3), sides()
    folded = predictor.fold_documents(documents, head[0])
    assert [tuple(part.shape) for part in folded] == [(23, HIDDEN), (23, 3), (23,)]
    asked = predictor.fold_queries(queries, head[0])
    assert [tuple(part.shape) for part in asked] == [(5, HIDDEN), (HIDDEN,), (5, 3), (5,)]
    assert not any(part.requires_grad for part in (*folded, *asked))


def test_without_additive_part_it_is_an_inner_product():
    """The student no longer contains the bi-encoder: the score of products alone is bilinear in the states."""
    predictor, (queries, documents, head) = trained(3), sides()
    with torch.no_grad():
        predictor.out.weight.zero_()
        for name in ("query_skip", "document_skip"):
            getattr(predictor, name).weight.zero_()
    direction = head[0] - head[1]
    asked, folded = predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction)
    constant = asked.bias[:, None]
    assert torch.allclose(folded_scores(asked, folded) - constant, asked.products @ folded.products.T, atol=1e-9)


def test_standardise_removes_the_scale_of_the_backbone():
    """The same weights mean something else on a backbone whose states are larger, shifted, or constant somewhere."""
    predictor = FoldablePredictor(WIDTH, HIDDEN, 0, 0.0).double()
    sizes = {"query": 100, "document": 10, "target": 0.1}
    samples = {name: torch.randn(400, WIDTH, dtype=torch.float64) * size + 4 * size for name, size in sizes.items()}
    for sample in samples.values():
        sample[:, 0] = 7.0  # a dead dimension
    compared = torch.randn(400, WIDTH, dtype=torch.float64)  # of a query, beside what is read
    predictor.standardise(torch.cat([compared, samples["query"]], dim=1), samples["document"], samples["target"])
    for name, sample in samples.items():
        z = (sample - getattr(predictor, f"{name}_mean")) / getattr(predictor, f"{name}_scale")
        assert torch.allclose(z[:, 1:].mean(0), torch.zeros(WIDTH - 1).double(), atol=1e-9)
        assert torch.allclose(z[:, 1:].std(0, correction=0), torch.ones(WIDTH - 1).double(), atol=1e-9)
        assert z[:, 0].abs().max() < 1e-6
    assert torch.isfinite(predictor(samples["query"], samples["document"])).all()


def test_state_dict_keeps_the_standardisation():
    """A saved predictor loses the means it was trained with and ranks at random."""
    predictor, (queries, documents, _) = trained(3), sides()
    copy = FoldablePredictor(WIDTH, HIDDEN, 3, 0.0).double()
    copy.load_state_dict(predictor.state_dict())
    assert torch.equal(copy(queries, documents.states[:5]), predictor(queries, documents.states[:5]))


def test_all_parameters_have_gradients():
    """A branch of the predictor is cut off from the loss, or starts where it can never move."""
    predictor, (queries, documents, _) = FoldablePredictor(WIDTH, HIDDEN, 3, 0.0).double(), sides()
    predictor(queries[:, None], documents.states).pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_similarity_costs_one_number_per_dimension():
    """The index is sized without the products of the similarity, or a student without it pays for them."""
    predictor, (queries, documents, head) = trained(3, similarity=5.0), sides()
    assert predictor.fold_documents(documents, head[0]).products.shape == (23, 3 + WIDTH)
    assert predictor.fold_queries(queries, head[0]).products.shape == (5, 3 + WIDTH)
