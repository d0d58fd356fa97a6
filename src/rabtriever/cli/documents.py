"""`rabtriever add`, `remove` and `changes`: documents over the corpus that a version was trained with."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from rabtriever.cli.opening import told_when_slow
from rabtriever.ops.terminal import json_line, one_line

_STDIN = "-"


def add(parsed: argparse.Namespace) -> None:
    """Adds documents, or replaces those of the same id."""
    from rabtriever.data.beir_io import parse_corpus, read_corpus
    from rabtriever.ops import tracking
    from rabtriever.server.documents import DocumentStore

    tracking.require()
    from_pipe = parsed.file == _STDIN
    corpus = parse_corpus(sys.stdin.buffer, "standard input") if from_pipe else read_corpus(parsed.file)
    if not corpus:
        where = "standard input" if from_pipe else parsed.file
        raise ValueError(f'{where} has no document; expected JSON lines with "_id" and "text"')
    store = DocumentStore()
    store.put(corpus.values())
    print(f"{len(corpus):,} documents are added or replaced, in {store.path}")


def remove(parsed: argparse.Namespace) -> None:
    """Removes documents; none of them where one is unknown."""
    from rabtriever.ops import tracking
    from rabtriever.server.documents import DocumentStore

    tracking.require()
    store = DocumentStore()
    _check_known(parsed.ids, store.changes())
    store.remove(*parsed.ids)
    print(f"{len(set(parsed.ids)):,} documents are removed, in {store.path}")


def changes(parsed: argparse.Namespace) -> None:
    """Prints the documents that were added or replaced, as lines of a corpus file."""
    from rabtriever.data.documents import document_row
    from rabtriever.ops import tracking
    from rabtriever.server.documents import DocumentStore

    tracking.require()
    found = DocumentStore().changes()
    for document in found.values():
        if document is not None:
            print(json_line(document_row(document)))
    removed = [doc_id for doc_id, document in found.items() if document is None]
    print(one_line(f"removed: {', '.join(removed) or 'none'}"), file=sys.stderr)


def _check_known(doc_ids: list[str], changed: Mapping[str, object | None]) -> None:
    """Makes sure that there are documents of these ids, in the champion's corpus or among those that were added.

    Raises:
        ValueError: there is none of one of them, or no champion to look into.
    """
    if all(changed.get(doc_id) is not None for doc_id in doc_ids):
        return
    from rabtriever.data.beir_io import read_corpus
    from rabtriever.ops.lookup import find_retriever
    from rabtriever.search.corpus_rows import unknown_document

    with told_when_slow("reading the ids of the champion's corpus"):
        corpus = read_corpus(find_retriever("champion").folder / "corpus.jsonl")
    rows = {doc_id: 0 for doc_id, one in {**corpus, **changed}.items() if one is not None}
    for doc_id in doc_ids:
        if doc_id not in rows:
            raise unknown_document(doc_id, rows)
