"""Writes recorded.json: what models/retriever answers to every query of the pages. `python -m tests.docs.record`.

Needs the retriever of the embedded set (`make run`). A query that is new gets an empty `about`: read its answer, and
write down a word that the first document must have for the answer to make sense.
"""

from __future__ import annotations

import argparse
import ast
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import write_json
from tests.docs.pages import blocks, pages
from tests.docs.stand_in import DEPTH, RECORDED


def asked() -> tuple[set[str], set[tuple[str, str]]]:
    """Queries that pages search for, and pairs of query and document that they have explained."""
    queries, pairs = set(), set()
    for block in (block for page in pages() for block in blocks(page)):
        for name, words in _calls(block.kind, block.text):
            if name == "search":
                queries.add(words[0])
            elif name == "explain" and block.kind == "python":
                pairs.add((words[0], words[1]))
    return queries, pairs


def _calls(kind: str, text: str) -> Iterator[tuple[str, list[str]]]:
    """Names and texts of the calls of Python, or of the commands of a shell."""
    if kind == "python":
        code = "\n".join(line[4:] if line.startswith((">>> ", "... ")) else line for line in text.splitlines())
        try:
            tree = ast.parse(code)
        except SyntaxError:  # a doctest with its output
            return
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            words = [one.value for node in call.args for one in ast.walk(node) if _is_text(one)]
            if isinstance(call.func, ast.Attribute) and words:
                several = call.args and isinstance(call.args[0], ast.List)
                for said in [[word] for word in words] if several else [words]:
                    yield call.func.attr, said
    elif kind == "sh":
        for line in text.splitlines():
            words = shlex.split(line, comments=True) if line.startswith("rabtriever ") else []
            if len(words) > 2 and not words[2].startswith("-"):
                yield words[1], words[2:]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def main() -> None:
    """Asks the retriever, and writes what it answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models/retriever", help="a retriever folder (default: %(default)s)")
    folder = Path(parser.parse_args().model)
    from rabtriever import Retriever

    queries, pairs = asked()
    retriever = Retriever.load(folder)
    before: dict[str, Any] = json.loads(RECORDED.read_text(encoding="utf-8")) if RECORDED.is_file() else {}
    known = before.get("search", {})
    answers = {query: retriever.search(query, k=DEPTH) for query in sorted(queries)}
    write_json(
        RECORDED,
        {
            "retriever": json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["hash"],
            "repr": repr(retriever),
            "search": {
                query: {
                    "about": known.get(query, {}).get("about", ""),
                    "hits": [[hit.doc_id, hit.score] for hit in hits],
                }
                for query, hits in answers.items()
            },
            "explain": {
                f"{query}\t{doc_id}": retriever.explain(query, doc_id).parts for query, doc_id in sorted(pairs)
            },
        },
    )
    for query, hits in answers.items():
        print(f"{query}\n    {hits[0].doc_id} {hits[0].title}: {hits[0].text}")


if __name__ == "__main__":
    main()
