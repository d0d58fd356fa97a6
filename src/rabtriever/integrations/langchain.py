"""A retriever and a reranker for LangChain.

>>> from rabtriever.integrations.langchain import RabtrieverRetriever  # doctest: +SKIP
>>> RabtrieverRetriever(model="champion", k=4).invoke("I spilled my coke.")  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.integrations.common import Searcher, TextScorer, best_first, contents, facts, missing, opened, relevance

try:
    from langchain_core.documents import Document
    from langchain_core.documents.compressor import BaseDocumentCompressor
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict, Field, PrivateAttr
except ModuleNotFoundError as error:
    raise missing("langchain", error) from error

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks


class RabtrieverRetriever(BaseRetriever):
    """Documents of a retriever's corpus, best first.

    `page_content` is title and text. `metadata` has the document's own, the title, `raw_score`, and
    `relevance_score`: the probability that the document helps.

    Attributes:
        model: a `Retriever`, or what `Retriever.load` takes; it is opened at once.
        k: number of documents; `invoke(query, k=3)` asks for another one.
    """

    model: str | Path | Searcher = Field(default="champion", exclude=True)
    k: int = Field(default=10, ge=1)
    _retriever: Any = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Opens the retriever."""
        super().model_post_init(context)
        self._retriever = opened(self.model)

    def _get_relevant_documents(self, query: str, *, run_manager: Any = None, k: int | None = None) -> list[Document]:
        hits = self._retriever.search(query, self.k if k is None else k)
        found = [Document(id=hit.doc_id, page_content=contents(hit), metadata=facts(hit)) for hit in hits]
        return [_scored(one, relevance(self._retriever, hit.score)) for one, hit in zip(found, hits, strict=True)]


class RabtrieverReranker(BaseDocumentCompressor):
    """Puts documents of any source in the order of their scores, and keeps the best.

    Copies of the documents are returned, with `relevance_score` in their metadata: the probability that each
    helps.

    Attributes:
        model: a `Retriever`, or what `Retriever.load` takes; it is opened at once.
        top_n: number of documents that are kept; all when None.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: str | Path | TextScorer = Field(default="champion", exclude=True)
    top_n: int | None = Field(default=3, ge=1)
    _scorer: Any = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Opens the retriever."""
        super().model_post_init(context)
        self._scorer = opened(self.model)

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best documents, best first."""
        found = best_first(self._scorer, query, [document.page_content for document in documents], self.top_n)
        return [_scored(documents[place], relevance(self._scorer, score)) for place, score in found]


def _scored(document: Document, score: float) -> Document:
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
