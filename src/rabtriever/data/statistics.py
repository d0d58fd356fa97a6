"""Sizes and peculiarities of a data set, and when two texts count as one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from rabtriever.data.beir_io import Dataset

_PUNCTUATION = ".,;:!?()\"'`´‘’“”…-"


def normalised(text: str) -> str:
    """A text in lower case, without punctuation around words and superfluous white space.

    Two queries whose normalised texts are equal count as one query.

    >>> normalised("I'm  COLD, what now?")
    "i'm cold what now"
    """
    words = (word.strip(_PUNCTUATION) for word in unicodedata.normalize("NFKC", text).casefold().split())
    return " ".join(filter(None, words)) or text.strip()


def describe(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a data set, and peculiarities that are worth knowing but are not faults.

    Args:
        dataset: A data set in which every judged query has a text.

    Returns:
        "documents", "documents_of_repeated_text", "mean_document_words", "queries", "queries_without_judgement" and
        "splits": per split "queries", "queries_without_positive", "queries_of_repeated_text", "judgements",
        "positives", "relevant_documents" and "mean_query_words".
    """
    judged = {query_id for qrels in dataset.qrels.values() for query_id in qrels}
    texts = [normalised(document.contents) for document in dataset.corpus.values()]
    return {
        "documents": len(dataset.corpus),
        "documents_of_repeated_text": len(texts) - len(set(texts)),
        "mean_document_words": _mean_words(document.contents for document in dataset.corpus.values()),
        "queries": len(dataset.queries),
        "queries_without_judgement": len(set(dataset.queries) - judged),
        "splits": {split: _split_statistics(dataset, split) for split in dataset.qrels},
    }


def _split_statistics(dataset: Dataset, split: str) -> dict[str, Any]:
    qrels, queries = dataset.qrels[split], dataset.split_queries(split)
    relevant = {doc_id for grades in qrels.values() for doc_id, grade in grades.items() if grade > 0}
    return {
        "queries": len(qrels),
        "queries_without_positive": sum(max(grades.values(), default=0) < 1 for grades in qrels.values()),
        "queries_of_repeated_text": len(queries) - len({normalised(text) for text in queries.values()}),
        "judgements": sum(map(len, qrels.values())),
        "positives": count_positives(qrels.values()),
        "relevant_documents": len(relevant),
        "mean_query_words": _mean_words(queries.values()),
    }


def _mean_words(texts: Iterable[str]) -> float:
    counts = [len(text.split()) for text in texts]
    return round(sum(counts) / max(len(counts), 1), 2)


def is_grade(grade: Any) -> bool:
    """Whether a value is an integer of 0 or more; True and False are not."""
    return isinstance(grade, int) and not isinstance(grade, bool) and grade >= 0


def count_positives(judged: Iterable[Mapping[str, int]]) -> int:
    """The number of judgements with grade 1 or more, over the grades by document of several queries."""
    return sum(is_grade(grade) and grade > 0 for grades in judged for grade in grades.values())
