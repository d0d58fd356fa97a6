"""Polishing: on what the teacher's score is taken, and that reading stays as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rabtriever.core.settings import load_params
from rabtriever.models.document_terms import bi_encoder_scores, encoded_documents, remember, score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.model_io import PREFIX, READER, open_teacher, save_model
from rabtriever.training.polishing import PolishParams, polishing_candidates
from tests.closure import ROOT

WEIGHTS = {"yes_no_logit": 0.5, "similarity": 9.0, "memory": 4.0, "attraction": 3.0, "prior": 0.4}


@pytest.fixture
def params() -> PolishParams:
    """The shipped settings with small numbers."""
    return dataclasses.replace(load_params(PolishParams, "polish", ROOT / "params.yaml"), pool=5, depth=2, random=1)


@pytest.fixture
def inputs(toy, judgements, prompt, query_ids, document_ids) -> TrainingInputs:
    return TrainingInputs(toy, judgements, prompt, query_ids, document_ids)


def test_candidates_are_the_best_known_with_the_whole_score(make_backbone, prompt, inputs, params):
    """The states learn from another score than the teacher's, or of documents that nobody would retrieve."""
    backbone, other = make_backbone(), make_backbone()
    backbone.configure(**WEIGHTS)
    reranker = Reranker(backbone, prompt, other, other)
    found = polishing_candidates(reranker, inputs, params, seed=3)
    assert len(found.query_rows) == 5 and found.facts["teacher_calls"] == (found.candidates >= 0).sum()
    states = backbone.encode(inputs.query_ids, 8)
    memory = remember(states, inputs.judgements.grades)
    documents = encoded_documents(backbone.encode(inputs.document_ids, 8), score_weights(backbone), memory)
    known = bi_encoder_scores(states, documents, 9.0)
    places = np.argwhere(found.candidates >= 0)
    pairs = np.stack([found.query_rows[places[:, 0]], found.candidates[tuple(places.T)]], axis=1)
    for part in reranker.annotate(inputs.query_ids, inputs.document_ids, pairs, 8, encoded=documents):
        np.testing.assert_allclose(found.scores[tuple(places[part.pairs].T)], part.scores, atol=1e-4)
    for row, listed in zip(found.query_rows, found.candidates, strict=True):
        assert set(np.argsort(-known[row])[:2]) <= set(listed), "what it ranks highest"
        assert set(inputs.judgements.grades[row]) & set(listed), "and what is right"


def test_what_reads_is_kept_beside_polished_states(make_backbone, prompt, prompt_params, inputs, tmp_path):
    """A reader after documents that other weights have read says something else than it was trained to."""
    polished, prefix, reader = make_backbone(), make_backbone(), make_backbone()
    for backbone, scale in ((prefix, 1.3), (reader, 0.7)):
        for weight in backbone.parameters():
            weight.data *= scale
    polished.configure(**{**WEIGHTS, "memory": 0.0, "attraction": 0.0, "prior": 0.0})
    pairs = np.array([[0, 1], [2, 3], [4, 0]])

    def scores(reranker: Reranker) -> np.ndarray:
        parts = reranker.annotate(inputs.query_ids, inputs.document_ids, pairs, 8)
        return np.concatenate([part.scores[np.argsort(part.pairs)] for part in parts])

    wanted = scores(Reranker(polished, prompt, reader, prefix))
    save_model(tmp_path / "teacher", "teacher", polished, prompt, {"data": "d" * 64}, {READER: reader, PREFIX: prefix})
    opened = open_teacher(tmp_path / "teacher", prompt_params, "d" * 64)
    found = scores(Reranker(opened.backbone, opened.prompt, opened.reader, opened.prefix))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(scores(Reranker(polished, prompt, reader)) - wanted).max() > 1e-3
