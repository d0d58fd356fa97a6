"""What the evaluation says of a calibration: figures that can be checked by hand, and a picture."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rabtriever.evaluation.calibration import calibration_report
from rabtriever.evaluation.plots import draw_calibration
from rabtriever.search.calibration import Calibration
from rabtriever.training.calibrating import JudgedHits

LOG_3 = math.log(3.0)  # a probability of 3/4


def hits() -> JudgedHits:
    """Eight hits of four queries: probabilities of 3/4 (three right, one wrong) and of 1/4 (two right, two wrong)."""
    scores = [LOG_3, -LOG_3] * 4
    right = [True, True, True, True, True, False, False, False]
    return JudgedHits(np.array(scores), np.array(right), np.repeat(np.arange(4), 2))


def test_figures_by_hand():
    """A Brier score of log-odds, or bins that count queries, would pass for a good calibration."""
    found = calibration_report(Calibration(1.0, 0.0, 0.75, 0.7), hits())
    assert found["hits"] == 8
    assert found["brier"] == pytest.approx((3 * 0.25**2 + 0.75**2 + 2 * 0.75**2 + 2 * 0.25**2) / 8, abs=1e-5)
    assert found["expected_calibration_error"] == pytest.approx((4 * 0.0 + 4 * 0.25) / 8, abs=1e-5)
    assert found["bins"] == [
        {"from": 0.2, "to": 0.3, "hits": 4, "probability": 0.25, "right": 0.5},
        {"from": 0.7, "to": 0.8, "hits": 4, "probability": 0.75, "right": 0.75},
    ]


def test_precision_and_answered_at_the_threshold():
    """A precision of the hits below the threshold, or answers counted by hit, tells nothing of the users' view."""
    found = calibration_report(Calibration(1.0, 0.0, 0.5, 0.7), hits())
    assert (found["threshold"], found["wanted_precision"]) == (0.5, 0.7)
    assert (found["precision"], found["answered"]) == (0.75, 1.0)
    one = JudgedHits(np.array([LOG_3, -LOG_3, -LOG_3]), np.array([True, False, False]), np.array([0, 0, 1]))
    assert calibration_report(Calibration(1.0, 0.0, 0.5, 0.7), one)["answered"] == 0.5


@pytest.mark.parametrize(("threshold", "answered"), [(None, None), (0.9, 0.0)])
def test_nothing_above_the_threshold(threshold: float | None, answered: float | None):
    """A mean of no hits is not a number, and no JSON either."""
    found = calibration_report(Calibration(1.0, 0.0, threshold, 0.95), hits())
    assert found["precision"] is None and found["answered"] == answered


def test_a_probability_of_one_has_a_bin():
    """The last edge falls out of its bin, and the best hits are lost."""
    sure = JudgedHits(np.array([1e3]), np.array([True]), np.array([0]))
    assert calibration_report(Calibration(1.0, 0.0, None, 0.9), sure)["bins"][0]["from"] == 0.9


@pytest.mark.parametrize("threshold", [None, 0.75])
def test_the_picture_is_drawn(tmp_path: Path, threshold: float | None):
    """A plot that fails where there is no threshold ends the evaluation."""
    draw_calibration(calibration_report(Calibration(1.0, 0.0, threshold, 0.7), hits()), tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").read_bytes().startswith(b"\x89PNG")
