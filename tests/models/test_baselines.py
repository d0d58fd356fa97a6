"""A bi-encoder with the student's terms: the same terms, the same fit, no reading."""

import numpy as np
import pytest

from rabtriever.baselines import calibrated_system
from rabtriever.document_terms import remember, term_features, unit
from rabtriever.fitting import TERMS, dev_candidates, fit_weights, share_to_take_for_new
from rabtriever.inputs import TrainingInputs
from rabtriever.lexical import Bm25
from rabtriever.records import Dataset


def test_it_ranks_by_fitted_known_terms(backbone, prompt, toy, supervision, query_ids, document_ids):
    """The row gets other terms or weights than the student, so that the comparison says nothing."""
    data = Dataset(toy.corpus, toy.queries, {"train": toy.qrels, "dev": toy.qrels, "test": toy.qrels})
    inputs = TrainingInputs(data, supervision, prompt, query_ids, document_ids)
    found = calibrated_system(inputs, toy.queries, backbone, 8, 0.05, 4, 2)
    asked, documents = backbone.encode(query_ids, 4), backbone.encode(document_ids, 4)
    memory = remember(asked, supervision.grades)
    new_share = share_to_take_for_new(memory, supervision, len(documents))
    assert new_share > 0, "the corpus has a document that no query names"
    candidates = dev_candidates(supervision, asked, documents, memory, 8, 0.05)
    weights = fit_weights(candidates, supervision, TERMS, 0.05, new_share).weights
    terms = term_features(documents, memory)
    assert weights.evidence == 0.0 and weights.need_memory
    known = unit(asked) @ (weights.similarity * unit(documents) + weights.memory * terms.memory).T
    wanted = known + weights.prior * terms.prior - weights.attraction * terms.attraction
    for query_id, scores in zip(supervision.query_ids, wanted, strict=True):
        best = {supervision.doc_ids[row]: float(score) for row, score in enumerate(scores)}
        assert found.run[query_id] == pytest.approx(best, abs=1e-3)
    assert found.bytes_per_document == 4 * (backbone.width + 1) and np.isfinite(found.ms_per_query)


def test_texts_without_a_word():
    """A corpus of signs, or of single letters, ends in a stack trace after the teacher's training."""
    index = Bm25(["的", "!"])
    rows, scores = index.rank(["hello", "的"], 5)
    assert rows.tolist() == [[0, 1]] * 2 and not scores.any() and index.bytes == 0
    assert Bm25(["hello there", "!"]).rank(["hello"], 1)[0].tolist() == [[0]]
