"""A retriever and a ranker as Haystack components.

A saved pipeline is read with `Pipeline.loads(text, allowed_modules=["rabtriever.integrations.*"])`.

>>> from rabtriever.integrations.haystack import RabtrieverRetriever  # doctest: +SKIP
>>> RabtrieverRetriever(model="champion", top_k=4).run(query="I spilled my coke.")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from rabtriever.integrations.common import (
    Searcher,
    TextScorer,
    best_first,
    check_count,
    contents,
    facts,
    missing,
    opened,
    relevance,
)
from rabtriever.search.retriever import Hit

os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")  # read when haystack is imported
try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ModuleNotFoundError as error:
    raise missing("haystack", error) from error


@component
class RabtrieverRetriever:
    """Documents of a retriever's corpus, best first; `content` is title and text, `score` a probability."""

    def __init__(self, model: str | Path | Searcher = "champion", top_k: int = 10) -> None:
        """Keeps the settings; `warm_up` opens the retriever.

        Args:
            model: what `Retriever.load` takes, or a `Retriever`, which a saved pipeline cannot hold.
            top_k: number of documents.
        """
        check_count("top_k", top_k)
        self.model, self.top_k = model, top_k
        self._retriever: Any = None

    def warm_up(self) -> None:
        """Opens the retriever, once."""
        self._retriever = self._retriever or opened(self.model)

    def to_dict(self) -> dict[str, Any]:
        """The settings as Haystack writes them.

        Raises:
            ValueError: the model was given as an object.
        """
        return default_to_dict(self, model=_name(self.model), top_k=self.top_k)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RabtrieverRetriever:
        """The component of these settings."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None) -> dict[str, list[Document]]:
        """The best documents of the corpus.

        Args:
            query: what is wanted.
            top_k: number of documents; the component's own when None.
        """
        self.warm_up()
        hits = self._retriever.search(query, self.top_k if top_k is None else top_k)
        return {"documents": [self._document(hit) for hit in hits]}

    def _document(self, hit: Hit) -> Document:
        score = relevance(self._retriever, hit.score)
        return Document(id=hit.doc_id, content=contents(hit), meta=facts(hit), score=score)


@component
class RabtrieverRanker:
    """Puts documents of any source in the order of their scores, and keeps the best; their score is a probability."""

    def __init__(self, model: str | Path | TextScorer = "champion", top_k: int | None = 10) -> None:
        """Keeps the settings; `warm_up` opens the retriever.

        Args:
            model: what `Retriever.load` takes, or a `Retriever`, which a saved pipeline cannot hold.
            top_k: number of documents that are kept; all when None.
        """
        check_count("top_k", top_k)
        self.model, self.top_k = model, top_k
        self._scorer: Any = None

    def warm_up(self) -> None:
        """Opens the retriever, once."""
        self._scorer = self._scorer or opened(self.model)

    def to_dict(self) -> dict[str, Any]:
        """The settings as Haystack writes them.

        Raises:
            ValueError: the model was given as an object.
        """
        return default_to_dict(self, model=_name(self.model), top_k=self.top_k)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RabtrieverRanker:
        """The component of these settings."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        """The best of these documents.

        Args:
            query: what is wanted.
            documents: documents with text.
            top_k: number of documents that are kept; the component's own when None.

        Raises:
            ValueError: a document has no text, or top_k is below 1.
        """
        check_count("top_k", top_k)
        for document in documents:
            if document.content is None:
                raise ValueError(f"document {document.id!r} has no text, expected content to score; leave it out")
        self.warm_up()
        found = best_first(self._scorer, query, [document.content for document in documents], top_k or self.top_k)
        return {
            "documents": [replace(documents[place], score=relevance(self._scorer, score)) for place, score in found]
        }


def _name(model: Any) -> str:
    if not isinstance(model, (str, Path)):
        raise ValueError(
            f"model is a {type(model).__name__} in memory, which a saved pipeline cannot hold; "
            'give its name or folder, such as model="champion"'
        )
    return str(model)
