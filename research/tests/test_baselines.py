"""A bi-encoder with the student's terms: the same terms, the same fit, no reading."""

import numpy as np
import pytest

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset
from rabtriever.data.judgements import Judgements
from rabtriever.models.document_terms import remember, term_features
from rabtriever.search.bm25 import Bm25
from rabtriever.training.fitting import TERMS, dev_candidates, fit_weights, share_to_treat_as_unseen
from rabtriever.training.inputs import training_inputs
from research.baselines import calibrated_system


def test_it_ranks_by_fitted_known_terms(backbone, prompt, toy, judgements, query_ids, document_ids):
    """The row gets other terms or weights than the student, is fitted on test queries, or remembers those of dev."""
    first, second = ([query_id for query_id in toy.queries if query_id.endswith(end)] for end in ("-0", "-1"))
    names = {"train": first, "dev": second[:3], "test": second[3:]}
    qrels = {part: {query_id: toy.qrels[query_id] for query_id in those} for part, those in names.items()}
    data = Dataset(toy.corpus, toy.queries, qrels)
    found = calibrated_system(training_inputs(data, prompt), toy.queries, backbone, 8, 0.05, 4)
    asked, documents = backbone.encode(query_ids, 4), backbone.encode(document_ids, 4)
    train, dev = (Judgements.build(toy.corpus, qrels[part], toy.queries) for part in ("train", "dev"))
    of_train, of_dev = (asked[np.isin(judgements.query_ids, one.query_ids)] for one in (train, dev))
    memory = remember(of_train, train.grades)
    new_share = share_to_treat_as_unseen(memory, dev, len(documents))
    assert new_share > 0, "the corpus has a document that no query names"
    candidates = dev_candidates(dev, of_dev, documents, memory, 8, 0.05)
    weights = fit_weights(candidates, dev, TERMS, 0.05, new_share).weights
    terms = term_features(documents, memory)
    assert weights.yes_no_logit == 0.0 and weights.need_memory
    known = unit(asked) @ (weights.similarity * unit(documents) + weights.memory * terms.memory).T
    wanted = known + weights.prior * terms.prior - weights.attraction * terms.attraction
    for query_id, scores in zip(judgements.query_ids, wanted, strict=True):
        best = {judgements.doc_ids[row]: float(score) for row, score in enumerate(scores)}
        assert found.run[query_id] == pytest.approx(best, abs=1e-3)
    assert found.bytes_per_document == 4 * (backbone.width + 1)


def test_texts_without_a_word():
    """A corpus of signs, or of single letters, ends in a stack trace after the teacher's training."""
    index = Bm25(["的", "!"])
    rows, scores = index.rank(["hello", "的"], 5)
    assert rows.tolist() == [[0, 1]] * 2 and not scores.any() and index.bytes == 0
    assert Bm25(["hello there", "!"]).rank(["hello"], 1)[0].tolist() == [[0]]
