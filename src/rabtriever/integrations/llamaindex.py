"""A retriever and a reranker (node postprocessor) for LlamaIndex.

>>> from rabtriever.integrations.llamaindex import RabtrieverRetriever  # doctest: +SKIP
>>> RabtrieverRetriever("champion", similarity_top_k=4).retrieve("I spilled my coke.")  # doctest: +SKIP
"""

from __future__ import annotations

import asyncio
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

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.bridge.pydantic import Field, PrivateAttr
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError as error:
    raise missing("llamaindex", error) from error


class RabtrieverRetriever(BaseRetriever):
    """Nodes of a retriever's corpus, best first.

    The text of a node is the document's title and text, its score the probability that it helps. Its metadata has the
    title and the raw score too, which no model is shown.
    """

    def __init__(self, model: str | Path | Searcher = "champion", similarity_top_k: int = 10, **settings: Any) -> None:
        """Opens the retriever.

        Args:
            model: a `Retriever`, or what `Retriever.load` takes.
            similarity_top_k: number of nodes.
            settings: what LlamaIndex' own BaseRetriever takes, such as `callback_manager`.
        """
        check_count("similarity_top_k", similarity_top_k)
        self._retriever, self.similarity_top_k = opened(model), similarity_top_k
        super().__init__(**settings)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._retriever.search(query_bundle.query_str, self.similarity_top_k)
        return [NodeWithScore(node=_node(hit), score=relevance(self._retriever, hit.score)) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class RabtrieverReranker(BaseNodePostprocessor):
    """Puts nodes of any source in the order of their scores, and keeps the best; their score is a probability."""

    top_n: int | None = Field(default=3, ge=1, description="number of nodes that are kept; all when None")
    _scorer: Any = PrivateAttr()

    def __init__(self, model: str | Path | TextScorer = "champion", top_n: int | None = 3, **settings: Any) -> None:
        """Opens the retriever.

        Args:
            model: a `Retriever`, or what `Retriever.load` takes.
            top_n: number of nodes that are kept; all when None.
            settings: what LlamaIndex' own BaseNodePostprocessor takes, such as `callback_manager`.
        """
        super().__init__(top_n=top_n, **settings)
        self._scorer = opened(model)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex writes."""
        return "RabtrieverReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ValueError("no query was given, expected the one to rerank for; pass query_str or query_bundle")
        texts = [node.node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        found = best_first(self._scorer, query_bundle.query_str, texts, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=relevance(self._scorer, score)) for place, score in found]


def _node(hit: Any) -> TextNode:
    hidden = ["title", "raw_score"]
    return TextNode(
        id_=hit.doc_id,
        text=contents(hit),
        metadata=facts(hit),
        excluded_llm_metadata_keys=hidden,
        excluded_embed_metadata_keys=hidden,
    )
