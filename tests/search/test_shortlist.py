"""The learned shortlist: its vectors, its training, its index."""

import numpy as np
import pytest
import torch

from rabtriever.search.shortlist import Projections, build_faiss, overlap
from rabtriever.training.shortlist_training import ShortlistModule


def test_inner_product_is_the_projected_score():
    """The document's bias, by which popular documents are proposed at all, is lost in the index."""
    projections = Projections(8, 6)
    queries, documents = torch.randn(20, 8) * 3 + 1, torch.randn(30, 8) * 2 - 1
    projections.standardise(queries, documents)
    vectors = projections.queries(queries), projections.documents(documents)
    assert [tuple(v.shape) for v in vectors] == [(20, 7), (30, 7)]
    z_q, z_d = ((side - side.mean(0)) / side.std(0, correction=0) for side in (queries, documents))
    projected = projections.document(z_d)
    expected = projections.query(z_q) @ projected[:, :6].T + projected[:, 6]
    assert torch.allclose(vectors[0] @ vectors[1].T, expected, atol=1e-4)


def test_training_makes_the_shortlist_rank_like_the_student():
    """The projections do not learn: the shortlist proposes other documents than the exact scan finds."""
    queries, documents = torch.randn(16, 8), torch.randn(60, 8)
    scores = (queries @ torch.randn(8, 8)) @ documents.T + documents[:, 0]
    projections = Projections(8, 6)
    module = ShortlistModule(projections, queries, documents, scores, seed=0)
    rng = np.random.default_rng(0)

    def found() -> float:
        with torch.no_grad():
            proposed = (projections.queries(queries) @ projections.documents(documents).T).topk(10).indices
        return overlap(proposed.numpy(), scores.topk(5).indices.numpy())

    before = found()
    optimizer = torch.optim.Adam(projections.parameters(), lr=0.03)
    for _ in range(150):
        optimizer.zero_grad()
        module.losses(rng)["shortlist"].backward()
        optimizer.step()
    assert before < 50 < 85 < found()


def test_a_step_is_of_a_sample_of_both_sides(monkeypatch):
    """Vectors of one sample are compared with scores of another, or a large corpus is read whole in every step."""
    monkeypatch.setattr("rabtriever.training.shortlist_training.QUERIES", 3)
    monkeypatch.setattr("rabtriever.training.shortlist_training.DOCUMENTS", 5)
    projections, seen = Projections(4, 2), []
    queries, documents = torch.randn(10, 4), torch.randn(20, 4)
    with torch.no_grad():
        scores = projections.queries(queries) @ projections.documents(documents).T
    plain = projections.documents
    projections.documents = lambda states: (seen.append(len(states)), plain(states))[1]
    module = ShortlistModule(projections, queries, documents, scores, seed=0)
    for _ in range(3):
        assert module.losses(np.random.default_rng(0))["shortlist"].item() == pytest.approx(0, abs=1e-6)
    assert seen == [5, 5, 5]


def test_a_step_is_no_larger_than_the_data():
    """A corpus smaller than the batch stops the run."""
    module = ShortlistModule(Projections(4, 2), torch.randn(2, 4), torch.randn(3, 4), torch.randn(2, 3), seed=0)
    assert torch.isfinite(module.losses(np.random.default_rng(0))["shortlist"])


def test_flat_index_is_exact():
    """The index uses another measure than the inner product the vectors were trained for."""
    vectors = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    queries = np.random.default_rng(1).normal(size=(4, 7)).astype(np.float32)
    scores, rows = build_faiss(vectors, "Flat").search(queries, 5)
    expected = np.argsort(-queries @ vectors.T, axis=1)[:, :5]
    assert np.array_equal(rows, expected)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ vectors.T, expected, 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("factory", "vectors"), [("Flatt", "vectors of 4"), ("PQ3", "vectors of 4"), ("IVF64,Flat", "10 vectors of 4")]
)
def test_factory_that_does_not_work(factory, vectors):
    """A typing error, or too many cells for the corpus, ends in a C++ stack trace."""
    with pytest.raises(ValueError, match=rf"index.factory '{factory}' does not work for {vectors}: .*take 'Flat'"):
        build_faiss(np.zeros((10, 4), dtype=np.float32), factory)


@pytest.mark.parametrize("factory", ["IVF32,SQ8", "PCA5,IVF32,Flat"])
def test_an_index_of_cells_searches_several(factory, tmp_path):
    """FAISS searches one cell unless told otherwise, and most of the right documents are in others."""
    import faiss

    vectors = np.random.default_rng(0).normal(size=(2000, 7)).astype(np.float32)
    faiss.write_index(build_faiss(vectors, factory), str(tmp_path / "index"))
    assert faiss.extract_index_ivf(faiss.read_index(str(tmp_path / "index"))).nprobe == 2


def test_overlap():
    """The reported recall of the shortlist is a share of the wrong thing (by hand: 3 of 4)."""
    assert overlap(np.array([[1, 2, 3], [4, 5, -1]]), np.array([[3, 1], [9, 4]])) == 75.0
