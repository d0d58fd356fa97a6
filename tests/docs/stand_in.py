"""A retriever that answers what the champion of the embedded set has answered: `recorded.json`, texts from the corpus.

It stands where pages load the champion. `python -m tests.docs.record` writes the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from rabtriever.data.beir_io import read_corpus
from tests.closure import ROOT

RECORDED = ROOT / "tests/docs/recorded.json"
CORPUS = ROOT / "data/household/corpus.jsonl"
DEPTH = 10  # documents recorded of each query


class Hit(NamedTuple):
    """As the public one."""

    doc_id: str
    score: float
    title: str
    text: str


class NotRecorded(AssertionError):
    """A page asks what was not recorded."""

    def __init__(self, what: Any) -> None:
        super().__init__(f"no answer recorded for {what!r}; run `python -m tests.docs.record` and read what it answers")


class StandIn:
    """Answers as the public `Retriever` does, from what was recorded."""

    def __init__(self) -> None:
        self._recorded = json.loads(RECORDED.read_text(encoding="utf-8"))
        self._corpus = read_corpus(CORPUS)

    @classmethod
    def load(cls, name: str | Path) -> StandIn:
        """Whatever is named, the recorded one."""
        return cls()

    def search(self, queries: str | Sequence[str], k: int = 10) -> Any:
        """A list of hits for a text, a list of lists for several."""
        if not isinstance(queries, str):
            return [self.search(query, k) for query in queries]
        if queries not in self._recorded["search"] or k > DEPTH:
            raise NotRecorded(queries)
        return [self._hit(doc_id, score) for doc_id, score in self._recorded["search"][queries]["hits"][:k]]

    def explain(self, query: str, doc_id: str) -> Any:
        """The parts of one score."""
        if f"{query}\t{doc_id}" not in self._recorded["explain"]:
            raise NotRecorded((query, doc_id))
        parts = self._recorded["explain"][f"{query}\t{doc_id}"]
        return SimpleNamespace(query=query, doc_id=doc_id, parts=parts, total=sum(parts.values()), **parts)

    def __len__(self) -> int:
        return len(self._corpus)

    def __repr__(self) -> str:
        return self._recorded["repr"]

    def _hit(self, doc_id: str, score: float) -> Hit:
        return Hit(doc_id, score, self._corpus[doc_id].title, self._corpus[doc_id].text)
