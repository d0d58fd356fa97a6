"""The predictor and its fold: the score of an index must be the score that was trained."""

import pytest
import torch

from rabtriever.lm.answer import yes_no_logit
from rabtriever.models.predictor import Predictor, folded_scores

WIDTH, HIDDEN = 12, 7


def trained(products: int, dtype: torch.dtype = torch.float64, similarity: float = 0.0) -> Predictor:
    """A predictor none of whose weights is at its initial value, standardised on samples."""
    predictor = Predictor(WIDTH, HIDDEN, products, similarity).to(dtype)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(torch.randn_like(parameter))
    spread = torch.linspace(0.1, 9, WIDTH, dtype=dtype)
    samples = [torch.randn(50, WIDTH, dtype=dtype) * spread + shift for shift in (3.0, -2.0, 5.0)]
    predictor.standardise(*samples)
    return predictor


def sides(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Embeddings of 5 queries and 23 documents, and the 2 answer rows of the head."""
    queries, documents, head = (torch.randn(size, WIDTH, dtype=dtype) for size in (5, 23, 2))
    return queries, documents, head


@pytest.mark.parametrize(("products", "similarity"), [(0, 0.0), (3, 0.0), (0, 20.0), (3, 20.0)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_folded_equals_unfolded(products, similarity, dtype, tolerance):
    """The index ranks by another function than the one that was trained; tolerance relative to the largest score."""
    predictor, (queries, documents, head) = trained(products, dtype, similarity), sides(dtype)
    direction, asked = head[0] - head[1], queries[:, None]
    predicted = predictor(asked, documents)
    direct = predictor.scores(asked, documents, predicted, direction)
    near = (queries / queries.norm(dim=1, keepdim=True)) @ (documents / documents.norm(dim=1, keepdim=True)).T
    assert torch.allclose(direct, yes_no_logit(predicted, head, 0, 1) + similarity * near)
    folded = predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction)
    limit = tolerance * float(direct.detach().abs().max())
    assert torch.allclose(folded_scores(*folded), direct, rtol=0, atol=limit)
    assert torch.allclose(folded_scores(*folded, block=4), direct, rtol=0, atol=limit)


@pytest.mark.parametrize(("products", "similarity"), [(0, 0.0), (2, 0.0), (2, 4.0)])
def test_the_predicted_state_is_the_written_formula(products, similarity):
    """A factor of the module's formula is lost, in training and in the index alike, so that both still agree."""
    predictor, (queries, documents, head) = trained(products, similarity=similarity), sides()
    part = {name: value.detach() for name, value in predictor.named_parameters()}
    query, document, direction = queries[3], documents[7], head[0] - head[1]
    z_q = (query - predictor.query_mean) / predictor.query_scale
    z_d = (document - predictor.document_mean) / predictor.document_scale
    inner = part["query_in.weight"] @ z_q + part["document_in.weight"] @ z_d + part["query_in.bias"]
    made = part["out.weight"] @ inner.clamp(min=0) + part["out.bias"]
    made += part["query_skip.weight"] @ z_q + part["document_skip.weight"] @ z_d
    if products:
        made += part["product_out.weight"] @ (
            (part["query_product.weight"] @ z_q) * (part["document_product.weight"] @ z_d)
        )
    wanted = predictor.target_mean + predictor.target_scale * made
    torch.testing.assert_close(predictor(query, document), wanted)
    cosine = query @ document / (query.norm() * document.norm())
    found = predictor.scores(query, document, wanted, direction)
    torch.testing.assert_close(found, wanted @ direction + similarity * cosine)


def test_an_untrained_student_ranks_as_the_bi_encoder():
    """Before it has learnt anything the predictor outweighs the cosine, or takes part of it away."""
    predictor = Predictor(WIDTH, HIDDEN, 0, 30.0).double()
    with torch.no_grad():
        predictor.out.weight.zero_()
    queries, documents, head = sides()
    direction = head[0] - head[1]
    scores = folded_scores(predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction))
    cosine = torch.cosine_similarity(queries[:, None], documents, dim=-1)
    torch.testing.assert_close(scores - scores[:, :1], 30.0 * (cosine - cosine[:, :1]))


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
    predictor = Predictor(WIDTH, HIDDEN, 0, 0.0).double()
    sizes = {"query": 100, "document": 10, "target": 0.1}
    samples = {name: torch.randn(400, WIDTH, dtype=torch.float64) * size + 4 * size for name, size in sizes.items()}
    for sample in samples.values():
        sample[:, 0] = 7.0  # a dead dimension
    predictor.standardise(samples["query"], samples["document"], samples["target"])
    for name, sample in samples.items():
        z = (sample - getattr(predictor, f"{name}_mean")) / getattr(predictor, f"{name}_scale")
        assert torch.allclose(z[:, 1:].mean(0), torch.zeros(WIDTH - 1).double(), atol=1e-9)
        assert torch.allclose(z[:, 1:].std(0, correction=0), torch.ones(WIDTH - 1).double(), atol=1e-9)
        assert z[:, 0].abs().max() < 1e-6
    assert torch.isfinite(predictor(samples["query"], samples["document"])).all()


def test_state_dict_keeps_the_standardisation():
    """A saved predictor loses the means it was trained with and ranks at random."""
    predictor, (queries, documents, _) = trained(3), sides()
    copy = Predictor(WIDTH, HIDDEN, 3, 0.0).double()
    copy.load_state_dict(predictor.state_dict())
    assert torch.equal(copy(queries, documents[:5]), predictor(queries, documents[:5]))


def test_all_parameters_have_gradients():
    """A branch of the predictor is cut off from the loss, or starts where it can never move."""
    predictor, (queries, documents, _) = Predictor(WIDTH, HIDDEN, 3, 0.0).double(), sides()
    predictor(queries[:, None], documents).pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_similarity_costs_one_number_per_dimension():
    """The index is sized without the products of the similarity, or a student without it pays for them."""
    predictor, (queries, documents, head) = trained(3, similarity=5.0), sides()
    assert (
        predictor.numbers_per_document == HIDDEN + 3 + WIDTH + 1 and trained(3).numbers_per_document == HIDDEN + 3 + 1
    )
    assert predictor.fold_documents(documents, head[0]).products.shape == (23, 3 + WIDTH)
    assert predictor.fold_queries(queries, head[0]).products.shape == (5, 3 + WIDTH)
