"""Writes explained.json: the parts of the scores that pages explain, of models/retriever.

`python -m tests.docs.explained` needs the retriever of the embedded set (`make run`).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from rabtriever.core.artifacts import read_manifest, write_json
from tests.closure import ROOT
from tests.docs.pages import blocks, pages
from tests.docs.stand_in import EXPLAINED


def asked() -> set[tuple[str, str]]:
    """Query and document of each `explain` in the Python blocks of the pages."""
    found = (block for page in pages() for block in blocks(page) if block.kind == "python" and block.runs)
    return {pair for block in found for pair in _pairs(block.text)}


def _pairs(code: str) -> Iterator[tuple[str, str]]:
    for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "explain":
            query, doc_id = (ast.literal_eval(argument) for argument in call.args[:2])
            yield query, doc_id


def main() -> None:
    """Asks the retriever, and writes what it answers."""
    from rabtriever import Retriever

    folder = ROOT / "models/retriever"
    retriever = Retriever.load(folder)
    parts = {"\t".join(pair): dict(retriever.explain(*pair).parts) for pair in sorted(asked())}
    write_json(EXPLAINED, {"retriever": read_manifest(folder, "retriever").hash, "parts": parts})


if __name__ == "__main__":
    main()
