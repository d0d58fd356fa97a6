"""Stratified candidates: which of a pool stay."""

from __future__ import annotations

import numpy as np
import pytest

from rabtriever.training.teacher_labels import TeacherLabels
from research.stratified import spread_over_range, stratified


def test_scores_cover_their_range_evenly():
    """A pool has many bad documents and few good ones: a sample of it has hardly any of the good ones."""
    scores = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 5.1, 9.8, 10.0])
    assert scores[spread_over_range(scores, 3)].tolist() == [10.0, 5.1, 0.0]
    assert scores[spread_over_range(scores, 5)].tolist() == [10.0, 9.8, 5.1, 0.4, 0.0], "each document once"


@pytest.mark.parametrize("count", [3, 4])
def test_few_documents_all_stay(count: int):
    """A small corpus has fewer documents than a list asks for."""
    assert spread_over_range(np.array([3.0, 1.0, 2.0]), count) == [0, 1, 2]


def test_positives_stay_beside_the_strata():
    """States and scores of another document would be the target of a candidate."""
    candidates = np.array([[4, 0, 1, 2, 3], [7, 5, 6, -1, -1]])
    scores = np.array([[2.0, 0.0, 1.0, 8.0, 4.0], [1.0, 3.0, 2.0, 0.0, 0.0]], dtype=np.float32)
    states = scores[..., None].astype(np.float16)
    labels = TeacherLabels(np.array([3, 9]), candidates, states, scores, {"teacher_calls": 8.0})
    found = stratified(labels, [{4}, {7}], 3)
    assert found.candidates.tolist() == [[4, 2, 3, 0], [7, 5, 6, -1]]
    assert found.scores[0].tolist() == [2.0, 8.0, 4.0, 0.0] and found.scores[1, :3].tolist() == [1.0, 3.0, 2.0]
    assert np.array_equal(found.states[..., 0][found.candidates >= 0], found.scores[found.candidates >= 0])
    assert found.query_rows.tolist() == [3, 9] and found.facts == {"teacher_calls": 8.0}
