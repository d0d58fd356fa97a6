"""The LlamaIndex door, against llama-index-core itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from rabtriever.integrations.llamaindex import RabtrieverReranker, RabtrieverRetriever
from rabtriever.search.calibration import UNCALIBRATED
from tests.integrations.conftest import BEST, CHANCES, QUERY, TEXTS


def test_nodes_are_the_hits(retriever: Any):
    """A query engine answers from other documents than the retriever found."""
    door = RabtrieverRetriever(retriever, similarity_top_k=3)
    found, hits = door.retrieve("the floor is dusty"), retriever.search("the floor is dusty", 3)
    assert [(one.node.node_id, one.node.metadata["raw_score"]) for one in found] == [
        (hit.doc_id, hit.score) for hit in hits
    ]
    assert [one.score for one in found] == [UNCALIBRATED.probability(hit.score) for hit in hits]
    assert found[0].node.metadata["title"] == hits[0].title
    assert asyncio.run(door.aretrieve("the floor is dusty")) == found


def test_a_model_reads_the_title_once(retriever: Any):
    """A prompt that repeats each title costs tokens."""
    (found,) = RabtrieverRetriever(retriever, similarity_top_k=1).retrieve("I am freezing")
    (hit,) = retriever.search("I am freezing", 1)
    assert found.node.get_content(MetadataMode.LLM) == f"{hit.title}. {hit.text}"


def test_reranking_keeps_the_best(shared_words: Any):
    """The best node is lost, or another text is scored than the one found."""
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"other": QUERY}), score=9.0) for text in TEXTS]
    found = RabtrieverReranker(shared_words, top_n=3).postprocess_nodes(nodes, query_str=QUERY)
    assert [one.node.text for one in found] == [TEXTS[place] for place in BEST[:3]]
    assert [one.score for one in found] == CHANCES
    assert nodes[3].score == 9.0, "the caller's node stays as it was"


def test_no_query(shared_words: Any):
    """Nodes come back in an order that means nothing."""
    with pytest.raises(ValueError, match="query_str"):
        RabtrieverReranker(shared_words).postprocess_nodes([])


def test_wrong_settings(retriever: Any):
    """A count of zero gives no documents, without a word."""
    with pytest.raises(ValueError, match="similarity_top_k is 0"):
        RabtrieverRetriever(retriever, similarity_top_k=0)
