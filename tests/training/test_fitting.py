"""The weights of the score: what is fitted is what the teacher would score, and dev judgements decide."""

import dataclasses

import numpy as np
import pytest

from rabtriever.core.vectors import unit
from rabtriever.data.judgements import Judgements
from rabtriever.models.document_terms import QueryMemory, ScoreWeights, encoded_documents, remember
from rabtriever.models.reranker import Reranker
from rabtriever.training.fitting import (
    NEW_SHARE,
    TERMS,
    DevCandidates,
    dev_candidates,
    fit_weights,
    share_to_treat_as_unseen,
    with_yes_no_logit,
)

TEMPERATURE = 0.05


@pytest.fixture
def candidates(backbone, prompt, judgements, query_ids, document_ids) -> DevCandidates:
    """Of the toy queries, all documents; the training queries are the same."""
    states = backbone.encode(query_ids, 8), backbone.encode(document_ids, 8)
    found = dev_candidates(judgements, *states, remember(states[0], judgements.grades), len(document_ids), TEMPERATURE)
    return with_yes_no_logit(found, Reranker(backbone, prompt), query_ids, document_ids, 16)


def plain(queries: int, documents: int) -> tuple[np.ndarray, list, list, np.ndarray]:
    """What judgements say beside the grades, where all documents are positive for some query and no text repeats."""
    return np.arange(documents), [frozenset()] * queries, [frozenset()] * queries, np.arange(documents)


def made(features: np.ndarray, right: np.ndarray) -> tuple[DevCandidates, object]:
    """Candidates of made-up features (Q, C, 5) of which one each is right, and their judgements."""
    count, width = features.shape[:2]
    rows = np.tile(np.arange(width), (count, 1))
    grades = (rows == right[:, None]).astype(np.float32)
    names = [f"q{number:03}" for number in range(count)], [f"d{number}" for number in range(width)]
    judged = Judgements(*names, [{int(row): 1} for row in right], *plain(count, width))
    return DevCandidates(features, rows, np.ones(rows.shape, dtype=bool), grades), judged


def in_nats(weights: ScoreWeights) -> np.ndarray:
    """The weights of the TERMS as made-up features have them."""
    plain = np.array([getattr(weights, name) for name in TERMS])
    return plain * [TEMPERATURE, 1, TEMPERATURE, TEMPERATURE, 1]


def test_features_are_the_terms_of_the_score(candidates, backbone, prompt, judgements, query_ids, document_ids):
    """Weights are chosen for a score that nobody computes."""
    chosen = np.array([0.7, 0.4, 0.3, 0.5, 0.2])
    weights = ScoreWeights(0.4, 0.7 / TEMPERATURE, 0.3 / TEMPERATURE, 0.5 / TEMPERATURE, 0.2)
    backbone.configure(**weights._asdict())
    memory = remember(backbone.encode(query_ids, 8), judgements.grades)
    encoded = encoded_documents(backbone.encode(document_ids, 8), weights, memory)
    places = np.argwhere(candidates.mask)
    pairs = np.stack([places[:, 0], candidates.rows[candidates.mask]], axis=1)
    assert len(pairs) == len(query_ids) * len(document_ids)
    for part in Reranker(backbone, prompt).annotate(query_ids, document_ids, pairs, 16, encoded=encoded):
        found = (candidates.features @ chosen)[tuple(places[part.pairs].T)]
        np.testing.assert_allclose(part.scores, found, atol=1e-4)
    assert TERMS == ("similarity", "yes_no_logit", "memory", "attraction", "prior")


def test_a_term_that_helps_gets_a_weight_and_one_that_misleads_none():
    """The fit goes the wrong way, or gives a misleading term a negative weight, or a forbidden one any."""
    rng = np.random.default_rng(0)
    features, right = rng.normal(size=(80, 6, 5)), rng.integers(6, size=80)
    features[np.arange(80), right, 1] += 3.0
    features[np.arange(80), right, 3] += 3.0
    features[np.arange(80), right, 4] -= 3.0
    found, judged = made(features, right)
    best = fit_weights(found, judged, TERMS, TEMPERATURE)
    assert best.weights.yes_no_logit > 0.5 and best.weights.prior == 0.0
    assert best.weights.attraction * TEMPERATURE > 0.5 and best.ndcg > best.similarity_ndcg + 20
    only = fit_weights(found, judged, ["yes_no_logit"], TEMPERATURE).weights
    assert (only.memory, only.attraction, only.prior) == (
        0.0,
        0.0,
        0.0,
    ) and only.yes_no_logit > best.weights.yes_no_logit


def test_every_weight_is_in_the_unit_of_its_term():
    """A weight is fitted for cosines that were divided by the temperature, and used for plain ones."""
    rng = np.random.default_rng(4)
    told, right = rng.normal(size=(2, 80, 6)), rng.integers(6, size=80)
    told[1, np.arange(80), right] += 3.0
    weights = []
    for place in range(1, len(TERMS)):
        features = np.zeros((80, 6, len(TERMS)))
        features[..., 0], features[..., place] = told
        weights.append(in_nats(fit_weights(*made(features, right), TERMS, TEMPERATURE).weights)[[0, place]])
    assert weights[0][1] > 0.5
    np.testing.assert_allclose(weights, [weights[0]] * 4, rtol=1e-4)


def test_what_fills_short_lists_is_not_looked_at():
    """The document that fills the lists counts as one that was found, and as an answer where it is right."""
    rng = np.random.default_rng(5)
    features, right = rng.normal(size=(80, 6, 5)), rng.integers(4, size=80)
    features[np.arange(80), right, 1] += 1.0
    features[:40, 4:, 0] = -1e4  # as good as not there
    right[:10] = 0
    whole = fit_weights(*made(features[10:], right[10:]), TERMS, TEMPERATURE)
    found, judged = made(features, right)
    found.rows[:10, :4] = [1, 2, 3, 4]  # the answer is not among them
    found.rows[:40, 4:], found.mask[:40, 4:], found.features[:40, 4:] = 0, False, 9.0
    found = found._replace(grades=(found.rows == right[:, None]).astype(np.float32))
    short = fit_weights(found, judged, TERMS, TEMPERATURE)
    assert short.weights == pytest.approx(whole.weights, rel=1e-4) and short.weights.yes_no_logit > 0.5
    assert short.ndcg == pytest.approx(whole.ndcg * 70 / 80)
    assert short.similarity_ndcg == pytest.approx(whole.similarity_ndcg * 70 / 80)


def test_few_queries_leave_the_similarity_alone():
    """Three dev queries decide about a corpus."""
    rng = np.random.default_rng(1)
    features, right = rng.normal(size=(3, 6, 5)), rng.integers(6, size=3)
    found, judged = made(features, right)
    weights = fit_weights(found, judged, TERMS, TEMPERATURE).weights
    assert weights.similarity * TEMPERATURE == pytest.approx(1.0, abs=0.5)
    assert max(weights.yes_no_logit, weights.prior) < 0.5
    unjudged = found._replace(grades=np.zeros_like(found.grades))
    assert fit_weights(unjudged, judged, TERMS, TEMPERATURE).weights == pytest.approx(
        ScoreWeights(yes_no_logit=0.0, similarity=1 / TEMPERATURE)
    )


def test_the_similarity_never_leaves_the_score():
    """The other terms are added to it: without it the retriever refuses its own weights."""
    rng = np.random.default_rng(2)
    features, right = rng.normal(size=(60, 6, 5)), rng.integers(6, size=60)
    features[np.arange(60), right, 0] -= 4.0
    found, judged = made(features, right)
    assert fit_weights(found, judged, TERMS, TEMPERATURE).weights.similarity * TEMPERATURE == pytest.approx(0.1)


@pytest.mark.parametrize("term", ["memory", "prior"])
def test_documents_taken_for_new_are_ranked_where_dev_has_none(term):
    """A document that no training query names is never found, as no dev query asks for one."""
    rng, place = np.random.default_rng(3), TERMS.index(term)

    def queries(count: int, new: bool) -> tuple[np.ndarray, np.ndarray]:
        features, right = np.zeros((count, 20, 5)), rng.integers(20, size=count)
        features[..., 0] = rng.normal(size=(count, 20))
        features[np.arange(count), right, 0] += 3.0
        features[..., place] = 3.0 + 0.1 * rng.normal(size=(count, 20))
        features[:, 10:, place] = 0.0  # of the wrong ones, half are in nobody's judgements
        features[np.arange(count), right, place] = 0.0 if new else 3.0
        return features, right

    def found_by(weights: ScoreWeights, features: np.ndarray, right: np.ndarray) -> float:
        return float(((features @ in_nats(weights)).argmax(1) == right).mean())

    known, asked = made(*queries(200, new=False))
    as_they_are = fit_weights(known, asked, TERMS, TEMPERATURE)
    drawn = fit_weights(known, asked, TERMS, TEMPERATURE, NEW_SHARE)
    assert (as_they_are.new_share, drawn.new_share) == (0.0, NEW_SHARE)
    assert 0 < getattr(drawn.weights, term) < 0.8 * getattr(as_they_are.weights, term)
    unseen = queries(500, new=True)
    assert found_by(drawn.weights, *unseen) > found_by(as_they_are.weights, *unseen) + 0.05
    assert drawn == fit_weights(known, asked, TERMS, TEMPERATURE, NEW_SHARE), "the same draws each time"


def test_documents_taken_for_new_keep_what_their_texts_say():
    """A new document has a text too: it is compared with queries, read, and near to all of them or not."""
    rng = np.random.default_rng(6)
    features, right = rng.normal(size=(80, 6, 5)), rng.integers(6, size=80)
    features[np.arange(80), right] += 2.0
    fits = [
        fit_weights(*made(features, right), ["yes_no_logit", "attraction"], TEMPERATURE, share) for share in (0.0, 0.5)
    ]
    assert min(in_nats(fits[0].weights)[[0, 1, 3]]) > 0.5
    assert fits[1].weights == pytest.approx(fits[0].weights, rel=1e-4)


@pytest.mark.parametrize(
    ("judged", "asked", "share"),
    [
        (range(20), range(10), 0.0),  # the corpus has no new document
        (range(5), [0, 1, 2], NEW_SHARE),
        (range(19), range(10), 0.05),  # one of twenty is new
        (range(10), [*range(19), 19], 0.0),  # dev asks for half of its documents anew
        (range(19), [*range(19), 19], 0.0),  # and for as many of them as there are
        (range(10), [*[0] * 39, 19], NEW_SHARE - 1 / 40),
        (range(10), [], 0.0),
    ],
)
def test_as_many_are_taken_for_new_as_dev_lacks(judged, asked, share):
    """A corpus without new documents, or dev queries that ask for them, would be fitted in another way."""
    memory = remember(np.eye(20, dtype=np.float32), [{row: 1} for row in judged] + [{19: 0}] * (20 - len(judged)))
    names = [f"q{row}" for row in range(len(asked))], [f"d{row}" for row in range(20)]
    grades = [{row: 1, 18: 0} if row != 18 else {18: 1} for row in asked]
    dev = Judgements(*names, grades, *plain(len(asked), 20))
    assert share_to_treat_as_unseen(memory, dev, 20) == pytest.approx(share)


def test_only_the_most_similar_documents_are_read(backbone, judgements, query_ids, document_ids):
    """The reading of every pair of a corpus is what nobody can afford."""
    states = backbone.encode(query_ids, 8), backbone.encode(document_ids, 8)
    found = dev_candidates(judgements, *states, remember(states[0], judgements.grades), 2, TEMPERATURE)
    cosine = unit(states[0]) @ unit(states[1]).T
    assert found.mask.sum(1).max() <= 4
    for query, (rows, mask) in enumerate(zip(found.rows, found.mask, strict=True)):
        assert set(np.argsort(-cosine[query])[:2]) <= set(rows[mask])
        assert len(set(rows[mask])) == mask.sum(), "each document once"


def test_a_query_is_no_candidate_of_its_own(backbone, judgements, query_ids, document_ids):
    """P06: the weights are fitted on lists that the query itself leads, or that lack a document for its sake."""
    states = backbone.encode(query_ids, 8), backbone.encode(document_ids, 8)
    nearest = np.argsort(-(unit(states[0]) @ unit(states[1]).T), axis=1)
    ignored = [frozenset([int(nearest[0, 0])]), *judgements.ignored[1:]]
    known = dataclasses.replace(judgements, ignored=ignored)
    found = dev_candidates(known, *states, remember(states[0], judgements.grades), 2, TEMPERATURE)
    lists = [rows[mask].tolist() for rows, mask in zip(found.rows, found.mask, strict=True)]
    assert lists[0][:2] == nearest[0, 1:3].tolist() and int(nearest[0, 0]) not in lists[0]
    assert lists[1][:2] == nearest[1, :2].tolist() and all(len(one) <= 4 for one in lists)


def test_what_the_memory_brings_near_is_a_candidate_too():
    """Answers that only the memory finds are not in the lists, and its weight is fitted without them."""
    cosine = np.array([1.0, 0.9, 0.1, 0.0])
    documents = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)
    asked = np.array([[2.0, 0.0], [0.0, 3.0]])
    told = np.array([[0.8, 0.0], [0.9, 0.0]])  # of the second, which comes first with it, and of the third, far off
    judged = Judgements(["a", "b"], list("wxyz"), [{1: 3, 2: 1}, {3: 2}], *plain(2, 4))
    found = dev_candidates(judged, asked, documents, QueryMemory(unit(asked), np.array([1, 2]), told, np.ones(2)), 1, 1)
    assert found.rows[found.mask].tolist() == [0, 1, 3] and found.mask.tolist() == [[True, True], [True, False]]
    assert found.grades[found.mask].tolist() == [0, 3, 2], "grades weigh the answers"
    assert found.features[0, :, 2].tolist() == pytest.approx([0, 0.8])
