"""A data set cut to a size."""

from __future__ import annotations

from rabtriever.data.beir_io import Dataset, Document
from research.subset import subset


def dataset() -> Dataset:
    corpus = {f"d{place:02}": Document(f"d{place:02}", "", f"text {place}") for place in range(40)}
    qrels = {
        "train": {f"a{place}": {f"d{place:02}": 1, "d39": 1} for place in range(20)},
        "dev": {f"b{place}": {f"d{20 + place:02}": 1} for place in range(4)},
        "test": {f"c{place}": {f"d{30 + place:02}": 2} for place in range(4)},
    }
    return Dataset(corpus, {query: f"query {query}" for part in qrels.values() for query in part}, qrels)


def test_a_smaller_corpus_keeps_what_is_judged():
    """A right document that is cut away makes its query impossible, and every figure too low."""
    small = subset(dataset(), {"test": 3, "dev": 2, "train": 10}, documents=12)
    assert len(small.qrels["dev"]) == 2 and len(small.qrels["test"]) == 3 and 0 < len(small.qrels["train"]) <= 10
    assert len(small.corpus) == 12
    judged = [doc for split in ("dev", "test") for grades in small.qrels[split].values() for doc in grades]
    assert set(judged) <= set(small.corpus) and len(judged) == 5
    for grades in small.qrels["train"].values():
        assert grades and set(grades) <= set(small.corpus)
    assert set(small.queries) == {query for qrels in small.qrels.values() for query in qrels}
    tiny = subset(dataset(), {}, documents=3)
    assert len(tiny.corpus) == 8, "test and dev need eight documents"


def test_a_query_left_with_wrong_documents_alone_goes():
    """The preparation refuses a training query without a relevant document, and the whole trial with it."""
    whole = dataset()
    whole.qrels["train"]["a19"] = {"d19": 1, "d30": 0}
    small = subset(whole, {}, documents=9)
    assert "d30" in small.corpus and "d19" not in small.corpus and "a19" not in small.qrels["train"]


def test_without_limits_the_data_stay_as_they_are():
    """A subset that always cuts something would change figures that claim the whole set."""
    assert subset(dataset(), {"train": 0}, 0) == dataset()
