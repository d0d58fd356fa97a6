"""Sizes and peculiarities of a data set, and when two texts count as one."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from rabtriever.data.beir_io import Dataset
from rabtriever.data.identical_ids import with_own_document

_SENTENCE = ".,;:!?…。"
_QUOTES = "\"'`´‘’“”„«»"
_OPENING = re.compile(rf"(?:\.{{2,}}|[({_QUOTES}¿¡…\[])+")
_CLOSING = re.compile(rf"[{_SENTENCE}{_QUOTES})\]]+$")
_SMILEY = re.compile(r"[:;=]['-]?[()\[\]]")
# Of a number, a symbol or a single letter some marks are part: 5!, 5", f'.
_CLOSING_PLAIN = re.compile(r"[.,;:?…。)\]]+$")
# Forms of a letter that mean the letter: of full width, in a ligature, at the end of a word. x² does not mean x2.
_SAME_LETTER = {"<wide>", "<narrow>", "<noBreak>", "<small>", "<vertical>"}
_SAME_LETTER |= {"<initial>", "<medial>", "<final>", "<isolated>"}


def normalised(text: str) -> str:
    """A text in lower case, without superfluous white space, quotes, brackets and the punctuation of sentences.

    Two queries whose normalised texts are equal count as one query. Signs that carry a meaning stay: those of numbers,
    exponents and smileys.

    >>> normalised("I'm  COLD, what now?")
    "i'm cold what now"
    >>> normalised("Is it -5 :(")
    'is it -5 :('
    """
    plain = text.lower() if text.isascii() else _plain(text)
    return " ".join(filter(None, map(_bare, plain.split()))) or text.strip()


def _plain(text: str) -> str:
    letters = "".join(map(_plain_letter, unicodedata.normalize("NFC", text)))
    return unicodedata.normalize("NFC", letters.casefold())


@functools.cache
def _plain_letter(character: str) -> str:
    """The usual form of a character where that means the same; otherwise the character."""
    form = unicodedata.decomposition(character).partition(" ")[0]
    same = form in _SAME_LETTER or (form == "<compat>" and character.isalpha())
    return unicodedata.normalize("NFKC", character) if same else character


def _bare(word: str) -> str:
    """A word without the prose punctuation around it; nothing where it is prose punctuation alone."""
    if word.isalnum():
        return word
    if not any(map(str.isalnum, word)):
        return "" if set(word) <= set(_SENTENCE) or word in f"()[]{_QUOTES}" else word
    opening = _OPENING.match(word)
    word = word[opening.end() :] if opening else word
    closing = _CLOSING.search(word)
    if closing is None or _SMILEY.search(closing[0]):
        return word
    before = word[: closing.start()]
    return before if before[-2:].isalpha() and len(before) > 1 else _CLOSING_PLAIN.sub("", word)


def describe(dataset: Dataset) -> dict[str, Any]:
    """Sizes of a data set, and peculiarities that are worth knowing but are not faults.

    Args:
        dataset: A data set in which every judged query has a text.

    Returns:
        "documents", "documents_of_repeated_text", "mean_document_words", "queries", "queries_without_judgement" and
        "splits": per split "queries", "queries_without_positive", "queries_of_repeated_text",
        "queries_with_own_document" (see `identical_ids`), "judgements", "positives", "relevant_documents" and
        "mean_query_words".
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


def notices(report: Mapping[str, Any]) -> list[str]:
    """What training and metrics do about peculiarities that `describe` has counted, a sentence each."""
    own = sum(split["queries_with_own_document"] for split in report["splits"].values())
    repeated = report["splits"].get("train", {}).get("queries_of_repeated_text", 0)
    copies = report["documents_of_repeated_text"]
    found = {
        f"{own:,} queries have the id of a document, which is ignored for that query, as in BEIR": own,
        f"{repeated:,} train queries repeat a text; training unites the judgements of equal queries": repeated,
        f"{copies:,} documents repeat a text; training counts documents of equal text as one": copies,
    }
    return [sentence for sentence, count in found.items() if count]


def _split_statistics(dataset: Dataset, split: str) -> dict[str, Any]:
    qrels, queries = dataset.qrels[split], dataset.split_queries(split)
    relevant = {doc_id for grades in qrels.values() for doc_id, grade in grades.items() if grade > 0}
    return {
        "queries": len(qrels),
        "queries_without_positive": sum(max(grades.values(), default=0) < 1 for grades in qrels.values()),
        "queries_of_repeated_text": len(queries) - len({normalised(text) for text in queries.values()}),
        "queries_with_own_document": len(with_own_document(dataset, qrels)),
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
