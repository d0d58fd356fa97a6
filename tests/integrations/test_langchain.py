"""The LangChain door, against langchain-core itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

from rabtriever.integrations.langchain import RabtrieverReranker, RabtrieverRetriever
from rabtriever.search.calibration import UNCALIBRATED
from tests.integrations.conftest import BEST, CHANCES, QUERY, TEXTS


def test_documents_are_the_hits(retriever: Any):
    """A chain answers from other documents than the retriever found."""
    found = RabtrieverRetriever(model=retriever, k=3).invoke("a hot drink would be nice")
    hits = retriever.search("a hot drink would be nice", 3)
    assert [one.id for one in found] == [hit.doc_id for hit in hits]
    assert [one.metadata["raw_score"] for one in found] == [hit.score for hit in hits]
    assert [one.metadata["relevance_score"] for one in found] == [UNCALIBRATED.probability(hit.score) for hit in hits]
    assert found[0].page_content == f"{hits[0].title}. {hits[0].text}" and found[0].metadata["title"] == hits[0].title


def test_a_folder_is_opened_and_k_asked_for(folder: Path, retriever: Any):
    """A setting of one call is ignored, or a folder's name taken for a text."""
    door = RabtrieverRetriever(model=folder, k=2)
    assert len(door.invoke("the floor is dusty")) == 2
    (only,) = door.invoke("the floor is dusty", k=1)
    assert only.id == retriever.search("the floor is dusty", 1)[0].doc_id


def test_chains_batches_and_coroutines(retriever: Any):
    """A chain runs a retriever in threads, and in an event loop."""
    chain = RabtrieverRetriever(model=retriever, k=1) | RunnableLambda(lambda found: found[0].id)
    queries = ["it is dark in the cellar", "I am freezing", "the power is out"] * 5
    expected = [hits[0].doc_id for hits in retriever.search(queries, 1)]
    assert chain.batch(queries) == expected
    assert asyncio.run(chain.abatch(queries[:3])) == expected[:3]


def test_reranking_keeps_the_best(shared_words: Any):
    """The best document is lost, or what others have noted on it."""
    documents = [Document(page_content=text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    found = RabtrieverReranker(model=shared_words, top_n=3).compress_documents(documents, QUERY)
    assert [one.metadata["place"] for one in found] == BEST[:3]
    assert [one.metadata["relevance_score"] for one in found] == CHANCES
    assert "relevance_score" not in documents[3].metadata
    assert RabtrieverReranker(model=shared_words).compress_documents([], QUERY) == []


def test_a_retriever_reranks(retriever: Any):
    """The reranker asks a retriever for what it does not have."""
    found = RabtrieverReranker(model=retriever, top_n=None).compress_documents(
        [Document(text) for text in TEXTS], QUERY
    )
    scores = dict(zip(TEXTS, retriever.score(QUERY, TEXTS), strict=True))
    assert [one.page_content for one in found] == sorted(TEXTS, key=scores.get, reverse=True)


def test_wrong_settings(tmp_path: Path, retriever: Any):
    """A chain starts without a retriever, and fails at its first query."""
    with pytest.raises(FileNotFoundError, match="nowhere"):
        RabtrieverRetriever(model=tmp_path / "nowhere")
    with pytest.raises(ValidationError):
        RabtrieverRetriever(model=retriever, k=0)
    with pytest.raises(ValidationError):
        RabtrieverRetriever(model=7)
