"""The student at work in either form: what it scores, what it leaves on disk, and which one can be indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rabtriever.core.settings import ParamsError, load_sections
from rabtriever.core.stages import NoTracker, Paths
from rabtriever.data.beir_io import Dataset
from rabtriever.evaluation.systems import student_system
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.encoder import Encoder
from rabtriever.lm.prompt import Prompt
from rabtriever.models import predictor as predictor_module
from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.models.predictor import FoldablePredictor, MlpPredictor, Predictor, PredictorParams, build_predictor
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer, exact_products, inner_products
from rabtriever.search.shortlist import IndexParams, Projections
from rabtriever.training.student_io import answer_direction, check_foldable, load_student, save_student
from research.baselines import unserved_student_system
from tests.closure import ROOT

SHAPES = {"foldable": PredictorParams("foldable", 12, 5), "mlp": PredictorParams("mlp", 12, 5)}
INDEX = IndexParams(
    exact_up_to=100,
    depth=8,
    dimension=6,
    factory="Flat",
    steps=0,
    learning_rate=0.01,
    queries=2,
    documents=4,
    precision=0.9,
)


@pytest.fixture
def states(backbone: Backbone, query_ids, document_ids) -> tuple[torch.Tensor, EncodedDocuments]:
    """States of the toy queries (12, 32), and the 8 documents with document_vectors and document_bias of their own."""
    queries, documents = (torch.from_numpy(backbone.encode(ids, 8)) for ids in (query_ids, document_ids))
    return queries, EncodedDocuments(documents, torch.randn(8, 32), torch.randn(8))


@pytest.fixture(params=SHAPES)
def scorer(request, backbone: Backbone, prompt: Prompt, states) -> Scorer:
    """A student of either form, none of whose weights is at its initial value."""
    backbone.configure(similarity=3.0)
    predictor = build_predictor(32, SHAPES[request.param], 3.0)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    predictor.standardise(states[0], states[1].states, states[0] * 2 + 1)
    return Scorer(Encoder(backbone), Encoder(backbone), prompt, predictor, answer_direction(backbone, 1.0, prompt))


def expected(scorer: Scorer, queries: torch.Tensor, documents: EncodedDocuments) -> np.ndarray:
    """(Q, N) scores by the predictor's definition, one pair after another."""
    with torch.no_grad():
        rows = [
            [
                float(scorer.predictor(query, document) @ scorer.direction)
                + 3.0 * float(query / query.norm() @ anchor)
                + float(offset)
                for document, anchor, offset in zip(*documents, strict=True)
            ]
            for query in queries
        ]
    return np.array(rows)


@pytest.mark.parametrize("cells", [1, 1000, 8_000_000])
def test_scores_are_the_predictor_on_every_pair(scorer: Scorer, states, monkeypatch, cells):
    """Mining and measuring rank by another function than the one trained, or the last block of documents is lost."""
    monkeypatch.setattr(predictor_module, "BLOCK_CELLS", cells)
    score = scorer.against(states[1])
    wanted = expected(scorer, *states)
    np.testing.assert_allclose(score(states[0]), wanted, atol=1e-4)
    np.testing.assert_allclose(score(states[0][3:4]), wanted[3:4], atol=1e-4)
    assert np.abs(wanted - wanted.mean()).max() > 0.1, "the scores differ at all"


def test_a_student_without_index_is_measured_like_the_served_one(scorer: Scorer, states, toy):
    """An ablation differs from the default in how it was measured, not in what it changes."""
    data = Dataset(toy.corpus, toy.queries, {"test": toy.qrels})
    alone = unserved_student_system(data, toy.queries, scorer, states[1])
    assert alone.search is not None and len(alone.search("it is dark")[0]) == len(toy.corpus)
    if not isinstance(scorer.predictor, FoldablePredictor):
        assert alone.bytes_per_document == 4 * 32, "the document's state"
        return
    served = Retriever.assemble(scorer, toy.corpus, states[1], Projections(32, INDEX.dimension), INDEX)
    found = student_system(data, toy.queries, served)
    assert alone.bytes_per_document == found.bytes_per_document == 4 * (12 + 5 + 32 + 1)
    for query_id, scores in found.run.items():
        assert list(alone.run[query_id]) == list(scores)
        assert alone.run[query_id] == pytest.approx(scores, abs=1e-4)


def test_saved_and_loaded_in_its_form(scorer: Scorer, states, backbone: Backbone, prompt: Prompt, tmp_path: Path):
    """A student comes back in another form than it was trained in, or not at all."""
    save_student(tmp_path / "student", scorer.predictor, scorer.direction, None, {"teacher": "t" * 64})
    loaded, manifest = load_student(tmp_path / "student", Encoder(backbone), prompt, "t" * 64)
    assert type(loaded.predictor) is type(scorer.predictor) and loaded.predictor.shape == scorer.predictor.shape
    assert manifest.info["form"] == scorer.predictor.shape.form
    saved = scorer.predictor.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.predictor.state_dict().items())
    assert torch.equal(loaded.direction, scorer.direction)
    # where a tensor lies in memory may change the last digit of a product
    np.testing.assert_allclose(loaded.against(states[1])(states[0]), scorer.against(states[1])(states[0]), atol=1e-5)


def test_only_what_folds_is_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The stage fails in the middle, without saying why, or leaves half an index; here it has nothing but students."""
    from rabtriever.training.stages import build_index as stage

    sections = load_sections(stage.Sections, ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    for number, shape in enumerate(SHAPES.values()):
        save_student(f"models/student/{number}", build_predictor(32, shape, 0.0), torch.zeros(32), None, {})
    check_foldable("models/student/0")
    with pytest.raises(ParamsError, match=r"student/1 was .*form 'mlp', but .* needs 'foldable'.*set predictor\.form"):
        stage.run(sections, Paths(), NoTracker(), 1)


def test_the_forms_share_all_but_their_units():
    """The comparison is of more than the non-linearity: another start, other skips, other sizes."""

    def made(form: str) -> Predictor:
        torch.manual_seed(5)
        return build_predictor(32, SHAPES[form], 3.0)

    foldable, mlp = made("foldable").state_dict(), made("mlp")
    assert isinstance(mlp, MlpPredictor) and mlp.middle.weight.shape == (12, 12)
    shared = {name: value for name, value in mlp.state_dict().items() if not name.startswith("middle")}
    assert all(torch.equal(value, foldable[name]) for name, value in shared.items())
    assert {name.split(".")[0] for name in set(foldable) - set(shared)} == {
        "query_product",
        "document_product",
        "product_out",
    }


def test_all_weights_of_the_mlp_have_gradients(states):
    """A layer is cut off from the loss, or starts where it can never move; a second layer that is linear is none."""
    predictor = build_predictor(32, SHAPES["mlp"], 0.0)
    queries, documents = states[0][:, None], states[1].states[None]
    predictor(queries, documents).pow(2).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())
    with torch.no_grad():
        z_q, z_d = torch.randn(32), torch.randn(32)
        first = torch.relu(
            torch.cat([z_q, z_d]) @ torch.cat([predictor.query_in.weight, predictor.document_in.weight], dim=1).T
            + predictor.query_in.bias
        )
        second = torch.relu(first @ predictor.middle.weight.T + predictor.middle.bias)
        assert torch.allclose(predictor.units(z_q, z_d), second, atol=1e-5), "two layers over the concatenation"


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
    if not isinstance(scorer.predictor, FoldablePredictor):
        pytest.skip("only a folded score is scanned")
    folded = scorer.fold(states[1])
    few = scorer.scores(states[0][:1], folded)
    monkeypatch.setattr("rabtriever.search.scorer.FEW_CELLS", 0)
    assert few == pytest.approx(scorer.scores(states[0][:1], folded), abs=1e-4)
    assert few == pytest.approx(scorer.scores(states[0], folded)[:1], abs=1e-4)


def test_queries_are_encoded_on_their_own_side(backbone: Backbone, make_backbone, prompt: Prompt, toy):
    """A student with a query adapter is asked with states that its predictor has never seen."""
    own, texts = make_backbone(seed=5), list(toy.queries.values())[:3]
    predictor = build_predictor(32, SHAPES["foldable"], 0.0)
    scorer = Scorer(Encoder(own), Encoder(backbone), prompt, predictor, torch.zeros(32))
    np.testing.assert_allclose(scorer.encode(texts), own.encode(prompt.query.ids(texts), 8), atol=1e-5)
