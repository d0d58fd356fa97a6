"""Fitting the calibration: on judged hits of dev queries, or not at all, with the reason."""

from __future__ import annotations

import re

import numpy as np
import pytest

from rabtriever.search.calibration import Calibration
from rabtriever.training.calibrating import FEWEST_HITS, JudgedHits, fit_calibration, judged_hits, precision_threshold


def drawn(slope: float, intercept: float, count: int = 20_000) -> JudgedHits:
    """Hits whose probability of being right is known."""
    rng = np.random.default_rng(5)
    scores = rng.normal(0.0, 3.0, count)
    right = rng.random(count) < 1 / (1 + np.exp(-(slope * scores + intercept)))
    return JudgedHits(scores, right, np.arange(count) // 10)


def hits(*pairs: tuple[float, int, int]) -> JudgedHits:
    """Hits from groups of (score, right ones, wrong ones)."""
    scores = [score for score, right, wrong in pairs for _ in range(right + wrong)]
    marks = [mark for _, right, wrong in pairs for mark in [True] * right + [False] * wrong]
    return JudgedHits(np.array(scores, dtype=float), np.array(marks), np.arange(len(marks)) // 10)


def test_hits_are_the_first_documents_with_their_judgements():
    """A grade of 0, a document that nobody judged or the eleventh hit taken for right would spoil every probability."""
    run = {"a": {"d1": 1.0, "d2": 3.0, "d3": 2.0}, "b": {"d1": 5.0}, "c": {"d1": 9.0}}
    qrels = {"a": {"d2": 2, "d3": 0, "d1": 1}, "b": {"d9": 1}, "not in the run": {"d1": 1}}
    found = judged_hits(run, qrels, depth=2)
    assert found.scores.tolist() == [3.0, 2.0, 5.0]
    assert found.right.tolist() == [True, False, False]
    assert found.queries.tolist() == [0, 0, 1]


def test_the_fit_finds_the_probabilities_that_hits_were_drawn_with():
    """A fit of ranks, or of the wrong label, gives a relevance_score that means nothing."""
    made = fit_calibration(drawn(0.7, -1.2), 0.9).calibration
    assert made.slope == pytest.approx(0.7, abs=0.03) and made.intercept == pytest.approx(-1.2, abs=0.06)
    assert made.precision == 0.9


def test_the_fit_is_repeated_to_the_byte():
    """A last digit that differs makes another retriever of equal inputs."""
    sample = drawn(0.7, -1.2, 500)
    shuffled = np.random.default_rng(1).permutation(500)
    assert fit_calibration(sample, 0.9) == fit_calibration(sample, 0.9)
    assert fit_calibration(JudgedHits(*(part[shuffled] for part in sample)), 0.9) == fit_calibration(sample, 0.9)


def test_separate_scores_keep_a_finite_slope():
    """Where right and wrong hits do not overlap, the likelihood alone has no maximum."""
    made = fit_calibration(hits((2.0, 5, 0), (-2.0, 0, 5)), 0.9).calibration
    assert 0 < made.slope < 10 and made.threshold is None, "ten hits are too few for a threshold"


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (hits((1.0, 0, 30)), "0 of 30 hits of dev queries are right"),
        (hits((1.0, 30, 0)), "30 of 30 hits of dev queries are right"),
        (hits(), "0 of 0 hits"),
        (hits((2.0, 1, 20), (-2.0, 20, 1)), r"a higher score does not make .*slope -"),
        (hits((1.0, 15, 15)), "slope 0"),
    ],
)
def test_no_calibration_where_dev_cannot_tell(sample: JudgedHits, reason: str):
    """A constant or reversed probability would be served as if it meant something."""
    made = fit_calibration(sample, 0.9)
    assert made.calibration is None and re.search(reason, made.missing)


def test_the_threshold_has_the_wanted_precision_and_no_smaller_one_has_it():
    """A threshold too low lets wrong hits through; one too high holds right ones back."""
    sample = drawn(1.0, 0.0, 5000)
    made = fit_calibration(sample, 0.9).calibration
    relevance = np.array([made.probability(score) for score in sample.scores])
    assert sample.right[relevance >= made.threshold].mean() >= 0.9
    lower = np.unique(relevance[relevance < made.threshold])
    assert all(sample.right[relevance >= value].mean() < 0.9 for value in lower)


def test_equal_scores_are_let_through_together():
    """Hits of one score cannot be told apart, however they are ordered."""
    assert precision_threshold(hits((3.0, 30, 0), (1.0, 20, 10)), 0.95) == 3.0
    assert precision_threshold(hits((3.0, 30, 0), (1.0, 20, 0)), 0.95) == 1.0


def test_a_few_hits_are_no_precision():
    """Three right hits at the top are no proof of 90 %."""
    few = hits((3.0, FEWEST_HITS - 1, 0), (1.0, 10, 40))
    assert precision_threshold(few, 0.9) is None
    assert precision_threshold(hits((3.0, FEWEST_HITS, 0), (1.0, 10, 40)), 0.9) == 3.0


def test_an_unreachable_precision_has_no_threshold():
    """A threshold of 1 would be read as one that works."""
    made = fit_calibration(hits((3.0, 15, 15), (1.0, 5, 40)), 0.9).calibration
    assert isinstance(made, Calibration) and made.threshold is None
