"""The data contract: each clause broken once, and what must not count as broken."""

import dataclasses
import re

import pytest

from rabtriever.data import contract
from rabtriever.data.beir_io import DataContractError, Dataset, Document

GOOD = Dataset(
    corpus={f"d{n}": Document(f"d{n}", "", f"document number {n}") for n in range(30)},
    queries={"a": "first need", "b": "second need", "c": "third need", "e": "fourth need", "unused": "nobody asks"},
    qrels={
        "train": {"a": {"d0": 2, "d1": 0}, "b": {"d1": 1}},
        "dev": {"c": {"d2": 1}},
        "test": {"e": {"d3": 1, "d0": 1}},
    },
)


def _changed(corpus=None, queries=None, **splits):
    return dataclasses.replace(
        GOOD,
        corpus={**GOOD.corpus, **(corpus or {})},
        queries={**GOOD.queries, **(queries or {})},
        qrels={**GOOD.qrels, **splits},
    )


def test_good_data_are_reported():
    """The report counts something else than it says."""
    report = contract.check_dataset(GOOD)
    assert all(one["success"] for one in report["expectations"])
    assert [one["expectation"] for one in report["expectations"]] == [one.plain for one in contract.CONTRACT]
    assert (report["documents"], report["queries"], report["queries_without_judgement"]) == (30, 5, 1)
    assert report["documents_of_repeated_text"] == 0 and report["mean_document_words"] == 3.0
    assert report["splits"]["train"] == {
        "queries": 2,
        "queries_without_positive": 0,
        "queries_of_repeated_text": 0,
        "queries_with_own_document": 0,
        "judgements": 3,
        "positives": 2,
        "relevant_documents": 2,
        "mean_query_words": 2.0,
    }


@pytest.mark.parametrize(
    ("dataset", "expected", "row"),
    [
        (
            _changed(test={"e": {"d3": 1, "d99": 1}}),
            "every judged document is in corpus.jsonl",
            "query 'e', document 'd99'",
        ),
        (_changed(test={"zz": {"d3": 1}, "e": {"d3": 1}}), "every judged query is in queries.jsonl", "query 'zz'"),
        (_changed(test={"e": {"d3": 1, "d4": 1.5}}), "every grade is an integer", "document 'd4', grade 1.5"),
        (_changed(test={"e": {"d3": 1, "d4": -1}}), "every grade is an integer", "document 'd4', grade -1"),
        (_changed(test={"e": {"d3": 1, "d4": True}}), "every grade is an integer", "document 'd4', grade True"),
        (
            _changed(train={"a": {"d0": 1}, "b": {"d1": 0}}),
            "every train query has a relevant document",
            "train.tsv: query 'b'",
        ),
        (_changed(train={}), "each split has a judgement", "qrels/train.tsv"),
        (_changed(train={"a": {"d0": 0}}), "each split has a judgement", "qrels/train.tsv"),
        (_changed(dev={}), "each split has a judgement", "qrels/dev.tsv"),
        (_changed(test={"e": {"d3": 0}}), "each split has a judgement", "qrels/test.tsv"),
        (_changed(corpus={"x": Document("x", "", " \t")}), "no document is blank", "corpus.jsonl: document 'x'"),
        (_changed(queries={"a": " "}), "no query is blank", "queries.jsonl: query 'a'"),
        (_changed(corpus={"x": Document("d0", "", "y")}), "document ids are unique", "document 'd0'"),
        (_changed(test={"a": {"d3": 1}}), "no query id is in two splits", "test.tsv: query 'a'"),
        (
            _changed(queries={"e": "First  need?"}),
            "no query text is in two splits",
            "test.tsv: query 'e', text 'First  need?'",
        ),
        (_changed(queries={"e": "third need"}), "no query text is in two splits", "dev.tsv: query 'c'"),
        (Dataset({}, GOOD.queries, GOOD.qrels), "no file is empty", "corpus.jsonl"),
    ],
)
def test_broken_clause_is_told_with_its_rows(dataset, expected, row):
    """Data that break the contract are trained on, or refused without saying where."""
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(dataset)
    message = str(caught.value)
    assert f"- expected: {expected}" in message and row in message
    advice = next(one.advice for one in contract.CONTRACT if one.plain.startswith(expected))
    assert advice in message


def test_every_clause_is_told_at_once():
    """A user mends one fault per run of the pipeline."""
    broken = _changed(train={"a": {"d99": 1}, "b": {"d1": 0}}, test={"a": {"d3": 1}})
    with pytest.raises(DataContractError, match=f"break 4 of {len(contract.CONTRACT)} expectations") as caught:
        contract.check_dataset(broken)
    assert str(caught.value).count("- expected:") == 4


def test_only_the_first_rows_are_listed():
    """A million wrong rows fill the screen."""
    broken = _changed(test={"e": {f"x{n:03d}": 1 for n in range(500)}})
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(broken)
    assert "found 500 that break it, the first 10" in str(caught.value)
    assert re.findall(r"'(x\d+)'", str(caught.value)) == [f"x{n:03d}" for n in range(10)]


def test_copies_of_a_text_stand_together():
    """The list shows ten train queries and not one of the test queries they collide with."""
    queries = {f"{split}{n}": f"need {n}" for split in ("p", "q") for n in range(20)}
    broken = _changed(
        queries=queries, train={f"p{n}": {"d0": 1} for n in range(20)}, test={f"q{n}": {"d0": 1} for n in range(20)}
    )
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(broken)
    assert "test.tsv: query 'q0'" in str(caught.value) and "train.tsv: query 'p0'" in str(caught.value)


def test_long_texts_are_cut():
    """One offending row of a dialogue set fills the screen."""
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(_changed(queries={"a": "word " * 500, "e": "word " * 500}))
    assert max(map(len, str(caught.value).splitlines())) < 160


def test_repeated_texts_within_a_split_are_counted_only():
    """A harmless repetition, as public sets have it, stops a run or goes unnoticed."""
    dataset = _changed(corpus={"x": Document("x", "", "Document number 1")}, queries={"b": "first need!"})
    report = contract.check_dataset(dataset)
    assert report["documents_of_repeated_text"] == 1 and report["splits"]["train"]["queries_of_repeated_text"] == 1


def test_test_query_without_positive_is_counted_only():
    """Judged but unanswerable test queries, which metrics leave out, stop a run."""
    report = contract.check_dataset(_changed(test={"e": {"d3": 1}, "unused": {"d1": 0}}))
    assert report["splits"]["test"]["queries_without_positive"] == 1


@pytest.mark.parametrize(
    ("one", "other"), [("It is -5", "it is 5"), ("Is it x² ?", "is it x2"), ("Mine :)", "Mine :(")]
)
def test_texts_of_other_meaning_are_no_leak(one, other):
    """O44: a sound set is refused as leaking, and nothing but a change of its queries gets round that."""
    assert contract.check_dataset(_changed(queries={"a": one, "e": other}))["splits"]["test"]["queries"] == 1


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ("\u00fcber", "u\u0308ber", "corpus.jsonl has '\u00fcber' with U+00FC where this one has U+0075 U+0308"),
        ("cap", "c\u0430p", "corpus.jsonl has 'cap' with U+0061 where this one has U+0430"),
        ("tea", "te\u200ba", "corpus.jsonl has 'tea' with no character where this one has U+200B"),
    ],
)
def test_ids_that_look_alike_are_told_apart(there, here, told):
    """O45: the message says that a document is missing which everybody sees. Neighbours: other scripts, no width."""
    broken = _changed(corpus={there: Document(there, "", "y")}, test={"e": {here: 1}})
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(broken)
    assert f"{told}; write both with the same characters" in str(caught.value)


def test_queries_that_look_alike_are_told_apart():
    """O45: a judged query seems to be missing; or a misspelt id is told to look like another."""
    broken = _changed(queries={"\u00fc": "a need"}, test={"u\u0308": {"d3": 1}, "\u00fa": {"d3": 1}})
    with pytest.raises(DataContractError) as caught:
        contract.check_dataset(broken)
    assert str(caught.value).count("queries.jsonl has") == 1
    assert "queries.jsonl has '\u00fc' with U+00FC where this one has U+0075 U+0308" in str(caught.value)


def test_dev_may_be_missing():
    """A set without dev is refused before one can be cut."""
    qrels = {split: GOOD.qrels[split] for split in ("train", "test")}
    assert list(contract.check_dataset(dataclasses.replace(GOOD, qrels=qrels))["splits"]) == ["train", "test"]
