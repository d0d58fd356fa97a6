"""`rabtriever search` and `rabtriever explain`."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from rabtriever.cli.opening import open_with_changes, told_when_slow
from rabtriever.ops.terminal import json_line, one_line

_ONE = "1"  # id of a query that was given without one, in a run file


def search(parsed: argparse.Namespace) -> None:
    """Ranks documents for one query, or for each of a file."""
    queries = _queries(parsed)
    retriever = open_with_changes(parsed.model)
    with told_when_slow(f"searching for {len(queries)} queries" if len(queries) > 1 else "searching"):
        found = retriever.search(list(queries.values()), k=parsed.k)
    if parsed.trec:
        from rabtriever.data.beir_io import write_run

        run = {name: {hit.doc_id: hit.score for hit in hits} for name, hits in zip(queries, found, strict=True)}
        write_run(parsed.trec, run)
        return
    for (name, query), hits in zip(queries.items(), found, strict=True):
        if parsed.json:
            named = {"query_id": name} if parsed.file else {}
            print(json_line({**named, "query": query, "hits": [hit._asdict() for hit in hits]}))
            continue
        if parsed.file:
            print(one_line(f"{name}: {query}"))
        _show(hits)


def explain(parsed: argparse.Namespace) -> None:
    """Shows the parts of a score, and their sum."""
    _check(parsed.query)
    found = open_with_changes(parsed.model).explain(parsed.query, parsed.document)
    if parsed.json:
        print(json.dumps({**found.parts, "total": found.total}))
        return
    for name, value in {**found.parts, "total": found.total}.items():
        print(f"{value:9.3f}  {name.replace('_', ' ')}")


def _queries(parsed: argparse.Namespace) -> dict[str, str]:
    """The queries by id, checked before the seconds that loading takes."""
    if parsed.file is None:
        _check(parsed.query)
        return {_ONE: parsed.query}
    from rabtriever.data.beir_io import read_queries

    queries = read_queries(parsed.file)
    if not queries:
        raise ValueError(f'{parsed.file} has no query; expected JSON lines with "_id" and "text"')
    return queries


def _check(query: str) -> None:
    from rabtriever.search.texts import check_query

    check_query(query, "the query")


def _show(hits: Sequence[Any]) -> None:
    width = len(str(len(hits)))
    for rank, hit in enumerate(hits, start=1):
        print(one_line(f"{rank:>{width}}. {hit.score:8.3f}  {hit.doc_id}  {hit.title}").rstrip())
        print(textwrap.fill(one_line(hit.text), 100, initial_indent="    ", subsequent_indent="    "))
