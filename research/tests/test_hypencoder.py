"""The Hypencoder: what its made networks compute, and that they learn."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rabtriever.core.settings import load_params
from rabtriever.training.student import StudentParams
from rabtriever.training.teacher_labels import TeacherLabels
from rabtriever.training.trainer import fit
from research.hypencoder import LAYERS, SIZE, Hypencoder, HypencoderModule
from tests.closure import ROOT

WIDTH = 16


@pytest.fixture
def model() -> Hypencoder:
    """One whose query makes a difference: as if it had been trained."""
    found = Hypencoder(WIDTH, similarity=3.0)
    with torch.no_grad():
        found.make[2].weight.normal_(std=0.1)
        found.make[2].bias.normal_(std=0.1)
    return found


@torch.no_grad()
def test_scores_are_those_of_a_network_for_each_query(model: Hypencoder):
    """A query is scored by the network of another, or layers by each other's weights."""
    queries, documents = torch.randn(3, WIDTH), torch.randn(3, 5, WIDTH)
    model.standardise(torch.randn(50, WIDTH) * 2 + 1, torch.randn(50, WIDTH) - 1)
    found = model(queries, documents)
    for row in range(3):
        made = model.make((queries[row] - model.query_mean) / model.query_scale)
        vectors = model.reduce((documents[row] - model.document_mean) / model.document_scale)
        for layer in range(LAYERS):
            vectors = vectors + torch.relu(vectors @ made[layer * SIZE**2 : (layer + 1) * SIZE**2].view(SIZE, SIZE))
        expected = vectors @ made[-SIZE:] / SIZE**0.5
        expected = expected + 3.0 * torch.cosine_similarity(queries[row], documents[row], dim=-1)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_it_starts_near_the_teachers_cosine():
    """A random ranking at the start would have to learn first what the student is given."""
    model, queries, documents = Hypencoder(WIDTH, similarity=30.0), torch.randn(4, WIDTH), torch.randn(4, 6, WIDTH)
    cosine = 30.0 * F.cosine_similarity(queries[:, None], documents, dim=-1)
    assert float((model(queries, documents) - cosine).abs().max()) < 0.1 * float(cosine.abs().max())


def test_it_learns_what_depends_on_query_and_document():
    """A head that learns nothing would be a rival in name alone."""
    rng = np.random.default_rng(0)
    queries, documents = (torch.from_numpy(rng.normal(size=(20, WIDTH)).astype(np.float32)) for _ in range(2))
    wanted = 4 * (queries * documents.roll(1, 0)[0].sign()) @ documents.T / WIDTH**0.5
    candidates = np.tile(np.arange(20), (20, 1))
    candidates[:, -1] = -1
    scores = wanted.numpy().copy()
    scores[:, -1] = 1e6
    labels = TeacherLabels(np.arange(20), candidates, np.zeros((20, 20, 1), dtype=np.float16), scores, {})
    shipped = load_params(StudentParams, "distill", ROOT / "params.yaml")
    params = dataclasses.replace(shipped, steps=80, queries=20)
    model = Hypencoder(WIDTH, similarity=0.0)
    module = HypencoderModule(model, labels, (queries, documents), params, seed=0)

    @torch.no_grad()
    def distance() -> float:
        return float(module.losses(np.random.default_rng(1))["listwise"])

    before = distance()
    fit(module, "test")
    assert distance() < 0.2 * before
