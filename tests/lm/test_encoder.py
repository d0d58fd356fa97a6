"""What encodes texts alone: with a reader apart, states that are compared and states that the predictor reads."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from rabtriever.lm.encoder import Encoder
from rabtriever.models.document_terms import (
    EncodedDocuments,
    ScoreWeights,
    bi_encoder_scores,
    encoded_documents,
    remember,
)
from rabtriever.models.predictor import FoldablePredictor, folded_scores


def test_the_two_states_lie_side_by_side(make_backbone, query_ids):
    """The predictor reads what was trained to be compared, or the other way round."""
    compared, read = make_backbone(), make_backbone(1)
    both = Encoder(compared, read)
    assert both.width == 64 and Encoder(compared).width == 32
    found = both.encode(query_ids, 4)
    np.testing.assert_array_equal(found[:, :32], compared.encode(query_ids, 4))
    np.testing.assert_array_equal(found[:, 32:], read.encode(query_ids, 4))
    assert np.abs(found[:, 32:] - found[:, :32]).max() > 0.1
    np.testing.assert_array_equal(Encoder(compared).encode(query_ids, 4), found[:, :32])


def test_documents_are_known_by_the_first_and_read_by_the_last():
    """Anchors and document_bias, or the memory behind them, come from states that nothing compares."""
    states, asked = torch.randn(5, 16), np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    memory = remember(asked[:, :8], [{0: 1}, {1: 1}, {1: 2}, {2: 1}])
    weights = ScoreWeights(yes_no_logit=1.0, similarity=2.0, memory=1.0, attraction=0.5, prior=0.3)
    wide = encoded_documents(states, weights, memory, width=8)
    plain = encoded_documents(states[:, :8], weights, memory)
    assert torch.equal(wide.states, states[:, 8:]) and torch.equal(plain.states, states[:, :8])
    assert torch.equal(wide.document_vectors, plain.document_vectors) and torch.equal(
        wide.document_bias, plain.document_bias
    )
    np.testing.assert_array_equal(bi_encoder_scores(asked, wide, 2.0), bi_encoder_scores(asked[:, :8], plain, 2.0))


def test_scores_of_wide_states_fold():
    """The index ranks by other states than the predictor was trained on."""
    torch.manual_seed(0)
    predictor = FoldablePredictor(8, 6, 3, similarity=2.0)
    with torch.no_grad():
        for parameter in predictor.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    queries, direction = torch.randn(4, 16), torch.randn(8)
    documents = EncodedDocuments(torch.randn(5, 8), torch.randn(5, 8), torch.randn(5))
    predictor.standardise(torch.randn(9, 16), documents.states, torch.randn(9, 8))
    with torch.no_grad():
        said = predictor(queries[:, None, 8:], documents.states[None]) @ direction
    wanted = said + 2.0 * F.normalize(queries[:, :8], dim=-1) @ documents.document_vectors.T + documents.document_bias
    torch.testing.assert_close(predictor.all_scores(queries, documents, direction), wanted)
    folded = folded_scores(predictor.fold_queries(queries, direction), predictor.fold_documents(documents, direction))
    torch.testing.assert_close(folded, wanted, atol=1e-4, rtol=1e-4)
