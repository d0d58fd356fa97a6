"""A retriever that gives the committed answers of the embedded set's champion, and the texts from its corpus.

It stands where pages load the champion. `make tables` writes its rankings, `python -m tests.docs.explained` the parts
of its scores.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from tests.closure import ROOT

ANSWERS = ROOT / "docs/evaluation/examples.json"
EXPLAINED = ROOT / "tests/docs/explained.json"


class Hit(NamedTuple):
    """As the public one."""

    doc_id: str
    score: float
    title: str
    text: str


class StandIn:
    """Answers as the public `Retriever` does."""

    def __init__(self) -> None:
        answers = json.loads(ANSWERS.read_text(encoding="utf-8"))["examples"]
        self._hits = {
            answer["query"]: [Hit(*(hit[field] for field in Hit._fields)) for hit in answer["hits"]]
            for answer in answers
        }
        self._parts = json.loads(EXPLAINED.read_text(encoding="utf-8"))["parts"]

    @classmethod
    def load(cls, name: str | Path = "champion") -> StandIn:
        """Whatever is named, the champion of the embedded set."""
        return cls()

    def search(self, queries: str | Sequence[str], k: int = 10) -> Any:
        """A list of hits for a text, a list of lists for several."""
        if not isinstance(queries, str):
            return [self.search(query, k) for query in queries]
        if queries not in self._hits or k > len(self._hits[queries]):
            raise LookupError(f"no {k} documents committed for {queries!r}; take a query of ops/examples.py, or less")
        return self._hits[queries][:k]

    def explain(self, query: str, doc_id: str) -> Any:
        """The parts of one score."""
        parts = self._parts.get(f"{query}\t{doc_id}")
        if parts is None:
            raise LookupError(f"no parts committed for {query!r}, {doc_id}; run python -m tests.docs.explained")
        return SimpleNamespace(query=query, doc_id=doc_id, parts=parts, total=sum(parts.values()), **parts)
