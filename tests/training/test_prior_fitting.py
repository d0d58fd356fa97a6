"""The fit of the document prior: what it finds, what it protects, and what it leaves alone."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from rabtriever.models.document_prior import PriorFeatures, PriorWeights
from rabtriever.training import prior_fitting
from rabtriever.training.prior_fitting import fit_prior

ASKED = np.array([[0.0, 2.0]])  # every query's embedding; its direction is the second axis


def features(centroid=(0.0, 0.0), hubness=(0.0, 0.0), popularity=(1.0, 1.0)) -> PriorFeatures:
    """Features of documents, of whose centroids only the part along the queries is given."""
    along = np.stack([np.full(len(centroid), 0.3), np.array(centroid)], axis=1)
    return PriorFeatures(along, np.array(hubness), np.array(popularity))


def fitted(known: PriorFeatures, rows, grades, scores=None) -> PriorWeights:
    """Weights of the features for queries with these candidates and grades, all scored 0 unless told."""
    rows = np.array(rows)
    scores = np.zeros(rows.shape) if scores is None else np.array(scores)
    return fit_prior(rows, scores, np.repeat(ASKED, len(rows), axis=0), known, grades)


@pytest.mark.parametrize(
    ("term", "known", "difference"),
    [
        ("query_centroid", features(centroid=(0.3, 0.2)), 20 * 0.1),
        ("hubness_penalty", features(hubness=(0.2, 0.3)), 20 * 0.1),
        ("log_popularity", features(popularity=(1.7, 0.5)), 1.2),
    ],
)
def test_a_planted_preference_is_found(term, known, difference):
    """A term has the weight of another, or one that the judgements do not ask for.

    40 queries prefer the first of two documents that only one term tells apart. By hand: the loss is
    3 w^2 + 40 log(1 + exp(-x w)), x the difference in units of the weight, and its minimum is where the slope is 0.
    """
    found = fitted(known, [[0, 1]] * 40, [{0: 1}] * 40)
    best = brentq(lambda w: 6 * w - 40 * difference / (1 + math.exp(difference * w)), 0, 50)
    scale = 1.0 if term == "log_popularity" else 20.0
    assert found._asdict() == pytest.approx({**PriorWeights()._asdict(), term: scale * best}, rel=1e-3)
    assert scale * best > 0.5


@pytest.mark.parametrize(
    "known", [features(centroid=(0.2, 0.3)), features(hubness=(0.3, 0.2)), features(popularity=(0.5, 1.7))]
)
def test_no_weight_is_below_zero(known):
    """Documents are punished because training queries name them."""
    assert fitted(known, [[0, 1]] * 40, [{0: 1}] * 40) == PriorWeights()


def test_few_judgements_say_little():
    """One dev query moves the whole ranking."""
    known = features(popularity=(3.0, 0.5))
    one, many = (fitted(known, [[0, 1]] * count, [{0: 1}] * count).log_popularity for count in (1, 500))
    assert one < 0.3 < 1.5 < many


def test_what_the_system_knows_is_not_told_again():
    """The prior is fitted as if nothing else ranked the documents."""
    known = features(popularity=(1.7, 0.5))
    alone = fitted(known, [[0, 1]] * 40, [{0: 1}] * 40).log_popularity
    beside = fitted(known, [[0, 1]] * 40, [{0: 1}] * 40, [[6.0, 0.0]] * 40).log_popularity
    assert beside < 0.1 * alone


def loss(weights: np.ndarray, rows: np.ndarray, scores: np.ndarray, known: PriorFeatures, grades) -> float:
    """The regularised negative log likelihood, one query after another; weights in their own units."""
    total = 3.0 * sum((weight / unit) ** 2 for weight, unit in zip(weights, (20, 20, 1), strict=True))
    for one, base, judged in zip(rows, scores, grades, strict=True):
        terms = (
            weights[0] * known.centroids[one, 1] - weights[1] * known.hubness[one] + weights[2] * known.popularity[one]
        )
        log_p = base + terms - np.log(np.exp(base + terms).sum())
        wanted = np.array([judged.get(int(row), 0) for row in one])
        total -= (wanted / wanted.sum() * log_p).sum()
    return total


def drawn() -> tuple[np.ndarray, np.ndarray, PriorFeatures, list[dict[int, int]]]:
    """30 queries with four candidates of ten documents, of which one or two are right, rather those of high terms."""
    rng = np.random.default_rng(3)
    known = features(0.3 * rng.random(10), 0.3 * rng.random(10), 0.5 + 2 * rng.random(10))
    rows = np.stack([rng.choice(10, size=4, replace=False) for _ in range(30)])
    favour = 20 * known.centroids[:, 1] - 20 * known.hubness + known.popularity + rng.gumbel(size=(30, 10))
    grades = [
        {int(row): 2, int(other): 1} for row, other in zip(favour.argmax(1), rng.integers(10, size=30), strict=True)
    ]
    listed = [any(row in judged for row in one) for one, judged in zip(rows.tolist(), grades, strict=True)]
    return (
        rows[listed],
        rng.standard_normal((30, 4))[listed],
        known,
        [one for one, kept in zip(grades, listed, strict=True) if kept],
    )


def test_the_weights_are_the_likeliest():
    """The gradient is that of another loss, or grades do not weigh: nearby weights are likelier."""
    rows, scores, known, grades = drawn()
    found = np.array(fitted(known, rows, grades, scores))
    least = loss(found, rows, scores, known, grades)
    assert (found > [1, 1, 0.05]).all() and least < loss(np.zeros(3), rows, scores, known, grades) - 1
    for place, step in enumerate((0.4, 0.4, 0.02)):
        for sign in (-1, 1):
            nearby = found + sign * step * np.eye(3)[place]
            assert loss(nearby, rows, scores, known, grades) > least, (place, sign)


def test_fillers_and_queries_without_answer_say_nothing():
    """A query with few candidates is read as one with the last document of the corpus; or an answer that no system
    has found makes the fit NaN."""
    rows, scores, known, grades = drawn()
    expected = fitted(known, rows, grades, scores)
    wider = np.concatenate([rows, np.full((len(rows), 1), -1)], axis=1)
    high = np.concatenate([scores, np.full((len(rows), 1), 50.0)], axis=1)
    absent = next(row for row in range(10) if row not in rows[0])
    lost = fitted(known, [*wider, wider[0]], [*grades, {absent: 1}], [*high, high[0]])
    np.testing.assert_allclose(lost, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "grades"), [([[0, 1]], [{5: 1}]), ([[0, 1]], [{0: 0}]), ([[0, 1]], [{}]), (np.zeros((0, 2), int), [])]
)
def test_nothing_usable_gives_zeros(rows, grades):
    """Without a dev query whose answer was found the index is not built, or has weights of chance."""
    assert fitted(features(popularity=(3.0, 0.5)), rows, grades) == PriorWeights(0.0, 0.0, 0.0)


def cold_start() -> tuple[PriorFeatures, list[list[int]], list[dict[int, int]]]:
    """A corpus of 20, two of them unseen; dev queries ask for seen ones alone, and an unseen one is among the
    candidates of each."""
    rng = np.random.default_rng(5)
    popularity = np.array([0.0, 0.0, *[math.log(3)] * 18])
    rows = [[int(rng.integers(2)), *rng.choice(np.arange(2, 20), size=4, replace=False).tolist()] for _ in range(60)]
    known = PriorFeatures(np.zeros((20, 2)), np.zeros(20), popularity)
    return known, rows, [{one[1]: 1} for one in rows]


def test_unseen_documents_are_protected(monkeypatch):
    """Where dev is cut from train, a document that no training query names is taken for never right.

    Nothing tells the seen documents apart. Without protection the weight grows, only because none of the dev queries
    asks for an unseen one.
    """
    protected = fitted(*cold_start()).log_popularity
    assert protected == fitted(*cold_start()).log_popularity, "drawn alike in each run"
    assert protected == pytest.approx(_likeliest(0.1), rel=0.1), "as if a tenth of the documents were unseen"
    monkeypatch.setattr(prior_fitting, "UNSEEN", 0.0)
    unprotected = fitted(*cold_start()).log_popularity
    assert unprotected == pytest.approx(_likeliest(0.0), rel=1e-3) and unprotected > 1.25 * protected


def _likeliest(share: float) -> float:
    """The weight by hand, over all ways in which each of the four seen candidates is left out with a probability."""

    def expected(weight: float) -> float:
        total = 3 * weight**2
        for left_out in itertools.product((False, True), repeat=4):
            scores = [0.0 if one else weight * math.log(3) for one in left_out]
            log_p = scores[0] - math.log(1 + sum(map(math.exp, scores)))
            total -= 60 * math.prod(share if one else 1 - share for one in left_out) * log_p
        return total

    return float(minimize_scalar(expected, bounds=(0, 10), method="bounded").x)


def test_dev_queries_like_those_to_come_are_taken_at_their_word():
    """Unseen documents are protected a second time where dev queries already ask for them."""
    known, rows, _ = cold_start()
    grades = [{one[0] if number % 10 == 0 else one[1]: 1} for number, one in enumerate(rows)]
    found = fitted(known, rows, grades).log_popularity
    best = brentq(lambda w: 6 * w - _pull(w), 0, 20)
    assert found == pytest.approx(best, rel=1e-3)


def _pull(weight: float) -> float:
    """Slope of the likelihood by hand: 54 of 60 answers are among four seen candidates, six are the unseen one."""
    seen, x = 4 * math.exp(math.log(3) * weight), math.log(3)
    return 54 * x * (1 - seen / (seen + 1)) - 6 * x * seen / (seen + 1)


@pytest.mark.parametrize(
    ("unseen", "corpus", "answers", "share"),
    [(1, 20, 0, 0.05), (5, 20, 0, 0.1), (1, 20, 1, 0.025), (1, 20, 4, 0.0), (0, 20, 0, 0.0)],
)
def test_share_of_unseen_documents_that_dev_lacks(unseen, corpus, answers, share):
    """A reading leaves out more documents than users ask for; forty dev queries, some of them for an unseen one."""
    popularity = np.array([0.0] * unseen + [1.0] * (corpus - unseen))
    known = PriorFeatures(np.zeros((corpus, 2)), np.zeros(corpus), popularity)
    grades = [{0: 1, corpus - 2: 0} if number < answers else {corpus - 1: 2} for number in range(40)]
    assert prior_fitting._unseen_share(known, grades) == pytest.approx(share)
