"""Sizes of a data set, and which texts count as one."""

import pytest

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.statistics import describe, is_grade, normalised


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("I'm cold.", "i'm  COLD", True),
        ("ﬁnd it", "find it", True),
        ("what is C++", "what is C", False),
        ("solve 3-1", "solve 31", False),
        ("?!", "??", False),
        ("(really) — cold", "really — cold", True),
    ],
)
def test_normalised(one, other, same):
    """Different questions count as leaked, or a leak hides behind a capital letter."""
    assert (normalised(one) == normalised(other)) is same


def test_only_whole_numbers_from_0_are_grades():
    """True counts as grade 1, or 1.5 as a relevant document."""
    assert [is_grade(value) for value in (0, 3, -1, 1.5, True, "1")] == [True, True, False, False, False, False]


def test_peculiarities_are_counted():
    """A report calls a set clean that has repeated texts, unjudged queries or queries without a relevant document."""
    corpus = {name: Document(name, "", text) for name, text in {"a": "One text", "b": "one text!", "c": "x"}.items()}
    queries = {"p": "need", "q": "Need?", "unused": "nobody judged this"}
    found = describe(Dataset(corpus, queries, {"test": {"p": {"a": 1, "b": 2}, "q": {"c": 0}}}))
    split = found["splits"]["test"]
    assert (found["documents_of_repeated_text"], found["queries_without_judgement"]) == (1, 1)
    assert (split["queries_without_positive"], split["queries_of_repeated_text"]) == (1, 1)
    assert (split["judgements"], split["positives"], split["relevant_documents"]) == (3, 2, 2)
