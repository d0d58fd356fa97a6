"""Fixtures of the tests with other frameworks: a small retriever, and one that scores texts by the words they share."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from rabtriever.search.calibration import Calibration
from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # read when haystack is imported


class SharedWords:
    """Stands where `Retriever.score` is asked."""

    calibration = Calibration(2.0, -1.0, None, 0.9)

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """The number of words that a text has of the query."""
        return [float(len(set(query.lower().split()) & set(text.lower().split()))) for text in texts]


@pytest.fixture
def shared_words() -> SharedWords:
    """Scores that a reader can check."""
    return SharedWords()


TEXTS = ["boils water for tea", "cut paper", "carries water", "water for hot tea"]
BEST = [3, 0, 2, 1]  # for the query below; the last has no word of it
QUERY = "hot water for tea"
CHANCES = [SharedWords.calibration.probability(words) for words in (4.0, 3.0, 1.0)]  # of the best three
