"""Sizes of a data set, and which texts count as one."""

import pytest

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.statistics import describe, is_grade, normalised, notices


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("I'm cold.", "i'm  COLD", True),
        ("ﬁnd it", "find it", True),
        ("what is C++", "what is C", False),
        ("solve 3-1", "solve 31", False),
        ("?!", "??", False),
        ("(really) — cold", "really — cold", True),
        ("Was ist das ?", "was ist das", True),
        ('"I want it," she said', "i want it she said", True),
        ("¿Qué hora es?", "qué hora es", True),
        ("… and vitamin c?", "And vitamin C", True),
        ("ｃｏｌｄ", "cold", True),
        ("cafe\u0301", "caf\u00e9", True),
    ],
)
def test_normalised(one, other, same):
    """Different questions count as leaked, or a leak hides behind a capital letter."""
    assert (normalised(one) == normalised(other)) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is -5 outside", "It is 5 outside"),
        ("5 - 3", "5 3"),
        ("take .5 of it", "take 5 of it"),
        ("what is 5!", "what is 5"),
        ("how long is 5'", 'how long is 5"'),
        ("solve x² = 9", "solve x2 = 9"),
        ("what is H₂", "what is H2"),
        ("add 1½ cups", "add 11⁄2 cups"),
        ("draw ℝ", "draw R"),
        ("the house is mine :)", "the house is mine :("),
        ("the house is mine :-)", "the house is mine"),
        ("the house is mine:)", "the house is mine:("),
        ("a tool for .net", "a tool for net"),
        ("give blood type O-", "give blood type O"),
        ("what is f'", "what is f"),
        ("not !ready", "not ready"),
    ],
)
def test_signs_with_a_meaning_tell_texts_apart(one, other):
    """O44: a sound data set is refused as leaking, because a sign that changes the question is taken for punctuation.

    Neighbours of `-5`, `x²` and `:)` are other signs of numbers, letters and smileys.
    """
    assert normalised(one) != normalised(other)


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


def test_what_is_done_about_peculiarities_is_told():
    """P06, P07: documents are ignored or taken together without a word, or a notice counts others."""
    corpus = {name: Document(name, "", text) for name, text in {"p": "Need", "b": "need!", "c": "x", "r": "y"}.items()}
    queries = {"p": "need", "q": "Need?", "r": "another", "t": "a test need"}
    judged = {"train": {"p": {"b": 1, "c": 1}, "q": {"c": 1}, "r": {"r": 1}}, "test": {"t": {"c": 1}}}
    own, repeated, copies = notices(describe(Dataset(corpus, queries, judged)))
    assert own.startswith("1 queries have the id of a document, which is ignored for that query, as in BEIR")
    assert repeated.startswith("1 train queries repeat a text") and copies.startswith("1 documents repeat a text")
    plain = Dataset({"c": corpus["c"]}, {"q": "need"}, {"train": {"q": {"c": 1}}})
    assert notices(describe(plain)) == []
