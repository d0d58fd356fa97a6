"""A retriever as MTEB measures it: `mteb.evaluate` builds its index over a task's corpus and searches there.

>>> import mteb  # doctest: +SKIP
>>> from rabtriever.integrations.mteb import RabtrieverSearch  # doctest: +SKIP
>>> mteb.evaluate(RabtrieverSearch("champion"), mteb.get_task("SciFact"))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.data.beir_io import Document, Run
from rabtriever.integrations.common import best_first, missing, opened
from rabtriever.search.retriever import Retriever

try:
    from mteb.models.model_meta import ModelMeta, ScoringFunction
except ModuleNotFoundError as error:
    raise missing("mteb", error) from error

if TYPE_CHECKING:
    from datasets import Dataset


class RabtrieverSearch:
    """A retriever that follows MTEB's SearchProtocol.

    Its weights encode the corpus of each task. What its training queries told of documents stays with those that the
    corpus has too.

    Attributes:
        mteb_model_meta: name and revision; MTEB files results under both.
    """

    def __init__(self, model: str | Path | Retriever = "champion", name: str = "rabtriever/retriever") -> None:
        """Opens the retriever.

        Args:
            model: a `Retriever`, or what `Retriever.load` takes.
            name: what MTEB calls it: an organisation, a slash and a name.

        Raises:
            ValueError: the retriever was never saved. Without a hash, MTEB would show one retriever's results as
                another's.
        """
        self._retriever = opened(model)
        if self._retriever.manifest is None:
            raise ValueError(
                "the retriever has no hash, which MTEB files results under; save it to a folder and give that folder"
            )
        revision = self._retriever.manifest.hash[:12]
        facts = {"name": name, "revision": revision, "similarity_fn_name": ScoringFunction.CUSTOM}
        self.mteb_model_meta = ModelMeta.create_empty(facts)
        self._indexed: Retriever | None = None
        self._texts: dict[str, str] = {}

    def index(self, corpus: Dataset, **task: Any) -> None:
        """Encodes a corpus; a document without any text is left out, and so never found.

        Args:
            corpus: rows with `id`, `text` and, optional, `title`.
            task: what MTEB tells about the task; not needed.
        """
        rows = (Document(str(row["id"]), row.get("title") or "", row["text"] or "") for row in corpus)
        documents = {document.doc_id: document for document in rows if document.contents}
        self._indexed = self._retriever.reindexed(documents)
        self._texts = {doc_id: document.contents for doc_id, document in documents.items()}

    def search(
        self, queries: Dataset, *, top_k: int, top_ranked: Mapping[str, list[str]] | None = None, **task: Any
    ) -> Run:
        """Scores by query and document id.

        Args:
            queries: rows with `id`, `text` and, optional, `instruction`, which follows the text.
            top_k: number of documents for each query.
            top_ranked: document ids by query, to be put in order: of a reranking task.
            task: what MTEB tells about the task; not needed.

        Raises:
            RuntimeError: no corpus was indexed.
            ValueError: a query is a conversation, or blank.
        """
        if self._indexed is None:
            raise RuntimeError("there is no corpus to search; call index first")
        texts = {str(row["id"]): _query(row) for row in queries}
        if top_ranked is None:
            return self._indexed.rank(texts, top_k)
        return {query_id: self._scores(text, top_ranked[query_id], top_k) for query_id, text in texts.items()}

    def _scores(self, query: str, doc_ids: list[str], top_k: int) -> dict[str, float]:
        known = [doc_id for doc_id in doc_ids if doc_id in self._texts]
        found = best_first(self._retriever, query, [self._texts[doc_id] for doc_id in known], top_k)
        return {known[place]: score for place, score in found}


def _query(row: Mapping[str, Any]) -> str:
    if not isinstance(row["text"], str):
        raise ValueError(f"query {row['id']!r} is a conversation, expected one text; choose a task of plain queries")
    return f"{row['text']} {row.get('instruction') or ''}".strip()
