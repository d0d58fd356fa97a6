"""The weights of the teacher's score: what is tried is what the teacher would score, and nothing else of it changes."""

import numpy as np
import pytest

from rabtriever.contrastive import unit
from rabtriever.distilled import answer_direction
from rabtriever.fitting import RATIOS, try_weights
from rabtriever.metrics import score_queries, summarise
from rabtriever.reranker import Reranker


@pytest.fixture
def reranker(backbone, prompt) -> Reranker:
    backbone.configure(similarity=8.0)
    return Reranker(backbone, prompt)


def test_each_weight_has_the_quality_of_a_teacher_that_has_it(reranker, supervision, query_ids, document_ids):
    """Otherwise a weight is chosen for a score that nobody computes."""
    count = len(document_ids)
    tried = try_weights(reranker, supervision, query_ids, document_ids, count, batch_size=16)
    assert [one.similarity / one.evidence for one in tried] == [8.0 * ratio for ratio in RATIOS]
    assert {max(one.evidence, one.similarity / 8.0) for one in tried} == {1.0}, "the scale of scores stays"
    qrels = {
        query_id: {supervision.doc_ids[row]: grade for row, grade in grades.items()}
        for query_id, grades in zip(supervision.query_ids, supervision.grades, strict=True)
    }
    pairs = np.stack(np.meshgrid(np.arange(len(query_ids)), np.arange(count), indexing="ij"), -1).reshape(-1, 2)
    for one in (list(tried)[0], list(tried)[-1]):
        reranker.backbone.configure(**one._asdict())
        run = {query_id: {} for query_id in supervision.query_ids}
        for part in reranker.annotate(query_ids, document_ids, pairs, 16):
            for (query, document), score in zip(pairs[part.pairs], part.scores, strict=True):
                run[supervision.query_ids[query]][supervision.doc_ids[document]] = float(score)
        assert tried[one] == pytest.approx(summarise(score_queries(qrels, run))["nDCG@10"], abs=0.5)


def test_only_the_most_similar_documents_are_ranked(reranker, supervision, query_ids, document_ids):
    """The reading of every pair of a corpus is what nobody can afford."""
    tried = try_weights(reranker, supervision, query_ids, document_ids, depth=1, batch_size=16)
    assert len(set(tried.values())) == 1, "a list of one document has one order"
    similar = unit(reranker.backbone.encode(query_ids, 16)) @ unit(reranker.backbone.encode(document_ids, 16)).T
    first = similar.argmax(1)
    found = [grades.get(int(row), 0) > 0 for grades, row in zip(supervision.grades, first, strict=True)]
    assert (set(tried.values()) != {0.0}) == any(found)


def test_the_weight_that_is_there_stays(reranker, supervision, query_ids, document_ids):
    """Who tries does not choose."""
    try_weights(reranker, supervision, query_ids, document_ids, depth=3, batch_size=16)
    assert (reranker.backbone.evidence, reranker.backbone.similarity) == (1.0, 8.0)


def test_a_score_without_similarity_is_refused(backbone, prompt, supervision, query_ids, document_ids):
    """Multiples of nothing are nothing."""
    with pytest.raises(ValueError, match="no similarity"):
        try_weights(Reranker(backbone, prompt), supervision, query_ids, document_ids, depth=3, batch_size=16)


def test_the_student_reads_along_the_weighted_evidence(backbone, prompt):
    """A student that ignores the teacher's weights is distilled towards scores that its states cannot give."""
    plain = answer_direction(backbone, prompt)
    backbone.configure(evidence=0.25)
    np.testing.assert_allclose(answer_direction(backbone, prompt), 0.25 * plain, atol=1e-7)
