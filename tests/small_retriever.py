"""Fixtures: an untrained student, and a retriever folder over the toy corpus; a conftest.py takes them from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rabtriever.lm.prompt import Prompt
from rabtriever.models.predictor import Predictor
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import IndexParams, Projections

PARAMS = IndexParams(document_prior=False, exact_up_to=100, depth=8, dimension=6, factory="Flat", precision=0.9)
FACTS = {"shortlist_recall": None, "document_prior": False}


@pytest.fixture
def scorer(make_backbone: Any, prompt_params: Any) -> Scorer:
    """An untrained student: random predictor, real encoder; no part of its score is zero."""
    backbone = make_backbone()
    torch.manual_seed(3)
    backbone.configure(similarity=3.0)
    prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
    predictor = Predictor(backbone.width, hidden=12, products=5, similarity=3.0)
    for skip in (predictor.query_skip, predictor.document_skip):
        torch.nn.init.normal_(skip.weight, std=0.1)
    direction = (backbone.head_weight[prompt.yes_id] - backbone.head_weight[prompt.no_id]).detach()
    return Scorer(backbone, prompt, predictor, direction)


@pytest.fixture
def documents(scorer: Scorer, toy: Any) -> Tensor:
    """(N, H) embeddings of the toy corpus."""
    ids = scorer.prompt.document.ids([document.contents for document in toy.corpus.values()])
    return torch.from_numpy(np.asarray(scorer.encoder.encode(ids, 4)))


@pytest.fixture
def retriever(scorer: Scorer, toy: Any, documents: Tensor) -> Retriever:
    """The untrained student over the toy corpus, with a shortlist."""
    projections = Projections(scorer.encoder.width, PARAMS.dimension)
    return Retriever.assemble(scorer, toy.corpus, documents, PARAMS, projections)


@pytest.fixture
def folder(retriever: Retriever, tmp_path: Path) -> Path:
    """The retriever, saved."""
    retriever.save(tmp_path / "retriever", {"data": "0" * 64}, FACTS)
    return tmp_path / "retriever"
