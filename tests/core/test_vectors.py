"""The best of many scores: the same rows in the same order, whatever sorts them."""

from __future__ import annotations

import numpy as np
import pytest

from rabtriever.core.vectors import top_rows


@pytest.mark.parametrize("depth", [1500, 2000])
def test_ties_are_ordered_by_row(depth: int) -> None:
    """numpy's default sort keeps the order of short lists alone, so a short test would not see it."""
    scores = np.random.default_rng(3).integers(0, 4, (2, 2000)).astype(np.float32)
    wanted = [sorted(range(2000), key=lambda row: (-values[row], row))[:depth] for values in scores]
    assert top_rows(scores, depth).tolist() == wanted
