"""The distilled bi-encoder: what it fits, and which documents it may push away."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.core.settings import load_params
from rabtriever.core.vectors import unit
from rabtriever.training.contrastive import BiencoderParams
from rabtriever.training.losses import forward_kl
from rabtriever.training.teacher_labels import TeacherLabels
from rabtriever.training.trainer import fit
from research.distilled_biencoder import DistilledBiencoderModule, possible_false_negatives, some_places
from tests.closure import ROOT

SHIPPED = load_params(BiencoderParams, "train_biencoder", ROOT / "params.yaml")
PARAMS = dataclasses.replace(SHIPPED, steps=5, batch_size=24, temperature=0.1, optimizer="adamw", learning_rate=3e-3)


@pytest.fixture
def labels() -> TeacherLabels:
    """All 8 documents for 11 queries, and 6 for the last, from a teacher that agrees with no judgement."""
    rng = np.random.default_rng(5)
    candidates = np.stack([rng.permutation(8) for _ in range(12)])
    candidates[11, 6:] = -1
    scores = np.where(candidates >= 0, 4 * rng.normal(size=(12, 8)), 1e6).astype(np.float32)
    return TeacherLabels(np.arange(12), candidates, np.zeros((12, 8, 1), dtype=np.float16), scores, {})


def test_the_teachers_best_positive_is_the_bar():
    """A right document that nobody judged is pushed away, or hard negatives below the bar are lost."""
    candidates = np.array([[3, 1, 2, 0, -1], [4, 5, 6, 7, 8]])
    scores = np.array([[9.0, 5.0, 5.0, 1.0, 99.0], [1.0, 2.0, 3.0, 4.0, 5.0]])
    grades = [{1: 1, 0: 2}, {9: 1}]
    assert [rows.tolist() for rows in possible_false_negatives(candidates, scores, grades)] == [[3, 2], []]


def test_a_step_has_the_teachers_best_document():
    """Without its best document a list says next to nothing of what the teacher prefers."""
    candidates = np.array([[5, 6, 7, 8, -1], [5, 6, -1, -1, -1]])
    scores = np.array([[1.0, 2.0, 9.0, 3.0, 99.0], [1.0, 2.0, 99.0, 99.0, 99.0]])
    seen = set()
    for seed in range(30):
        places = some_places(candidates, scores, 3, np.random.default_rng(seed))
        assert places[0, 0] == 2 and len(set(places[0])) == 3 and 4 not in places[0]
        assert places[1, :2].tolist() == [1, 0], "empty places come last"
        seen |= set(places[0].tolist())
    assert seen == {0, 1, 2, 3}


def test_the_terms_are_those_of_their_definition(backbone, inputs, labels):
    """The scores of one query are fitted to those of another, or padding counts."""
    module = DistilledBiencoderModule(backbone, inputs, labels, PARAMS, seed=0)
    terms = module.losses(np.random.default_rng(0))
    queries, documents = (
        torch.from_numpy(unit(backbone.encode(ids, 8))) for ids in (inputs.query_ids, inputs.document_ids)
    )
    cosine = queries @ documents.T / 0.1
    mask = torch.from_numpy(labels.candidates >= 0)
    ours = cosine.gather(1, torch.from_numpy(labels.candidates.clip(min=0)))
    expected = forward_kl(ours, torch.from_numpy(labels.scores), mask)
    assert float(terms["distillation"].detach()) == pytest.approx(float(expected), rel=1e-4)
    assert set(terms) == {"distillation", "contrastive"}


def test_documents_at_the_bar_are_no_negatives(backbone, inputs, labels):
    """The contrastive term pushes away what the distillation term pulls near."""
    module = DistilledBiencoderModule(backbone, inputs, labels, PARAMS, seed=0)
    assert {len(rows) > 0 for rows in module.doubtful} == {True, False}
    free = [np.setdiff1d(range(8), list(inputs.judgements.grades[query])) for query in range(12)]
    before = module.losses(np.random.default_rng(0))["contrastive"].detach()
    module.doubtful = free  # now nothing but the target is in the sum
    after = module.losses(np.random.default_rng(0))["contrastive"].detach()
    assert float(after) == pytest.approx(0.0, abs=1e-6) and float(before) > 0.01


def test_training_brings_it_nearer_to_the_teacher(backbone, inputs, labels):
    """A module that trains nothing leaves the rival as weak as it started."""
    module = DistilledBiencoderModule(backbone, inputs, labels, dataclasses.replace(PARAMS, steps=30), seed=0)

    def distance() -> float:
        with torch.no_grad():
            return float(module.losses(np.random.default_rng(3))["distillation"])

    before = distance()
    fit(module, "test")
    assert distance() < 0.7 * before
