"""Fixtures: an untrained student, and a retriever folder over the toy corpus; a conftest.py takes them from here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rabtriever.lm.encoder import Encoder
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_terms import EncodedDocuments, QueryMemory, encoded_documents, remember, score_weights
from rabtriever.models.predictor import FoldablePredictor
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import IndexParams, Projections

PARAMS = IndexParams(
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


@pytest.fixture(params=[False, True], ids=["one model", "reader"])
def scorer(request: Any, make_backbone: Any, prompt_params: Any) -> Scorer:
    """An untrained student: random predictor, real encoder, with the reader's states beside those compared or not."""
    backbone = make_backbone()
    torch.manual_seed(3)
    backbone.configure(similarity=3.0, memory=2.0, attraction=1.5, prior=0.5)
    prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
    predictor = FoldablePredictor(backbone.width, hidden=12, products=5, similarity=3.0)
    direction = (backbone.head_weight[prompt.yes_id] - backbone.head_weight[prompt.no_id]).detach()
    encoder = Encoder(backbone, make_backbone(1) if request.param else None)
    return Scorer(encoder, encoder, prompt, predictor, direction)


@pytest.fixture
def memory(scorer: Scorer, toy: Any) -> QueryMemory:
    """What the toy queries tell of the second and the third document."""
    asked = scorer.encoder.compared.encode(scorer.prompt.query.ids(list(toy.queries.values())[:4]), 4)
    return remember(asked, [{1: 1}, {1: 2}, {2: 1}, {1: 1, 2: 1}])


@pytest.fixture
def documents(scorer: Scorer, toy: Any, memory: QueryMemory) -> EncodedDocuments:
    """The toy corpus, with every term of the score at work."""
    ids = scorer.prompt.document.ids([document.contents for document in toy.corpus.values()])
    states, weights = scorer.document_encoder.encode(ids, 4), score_weights(scorer.document_encoder.compared)
    return encoded_documents(states, weights, memory, scorer.predictor.width)


@pytest.fixture
def retriever(scorer: Scorer, toy: Any, documents: EncodedDocuments, memory: QueryMemory) -> Retriever:
    """The untrained student over the toy corpus."""
    projections = Projections(scorer.encoder.width, PARAMS.dimension)
    return Retriever.assemble(scorer, toy.corpus, documents, projections, PARAMS, memory)


@pytest.fixture
def folder(retriever: Retriever, tmp_path: Path) -> Path:
    """The retriever, saved."""
    retriever.save(tmp_path / "retriever", {"data": "0" * 64}, {"round": 0})
    return tmp_path / "retriever"
