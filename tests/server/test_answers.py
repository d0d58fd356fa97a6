"""What the routes answer: search, rerank, documents, health."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rabtriever.server.backend import RERANK_PIECE
from tests.server.fakes import CALIBRATION, DOCUMENTS, FakeRegistry, FakeStore


def hit(doc_id: str, score: float) -> dict[str, Any]:
    document = DOCUMENTS[doc_id]
    chance = CALIBRATION.probability(score)
    return {
        "id": doc_id,
        "score": score,
        "relevance_score": pytest.approx(chance),
        "title": document.title,
        "text": document.text,
        "metadata": {},
    }


def test_one_query_gets_one_result(client: TestClient) -> None:
    """Prevents an answer without what an application shows, or without the version that answered."""
    answer = client.post("/v1/search", json={"query": "light in the cellar", "k": 2})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "hits": [hit("d2", 3.0), hit("d1", 0.0)],
        "low_confidence": False,
        "version": "1",
        "model": "1abcdef01234",
    }


def test_several_queries_get_results_in_their_order(client: TestClient) -> None:
    """Prevents the answer of one query from going to another one."""
    answer = client.post("/v1/search", json={"queries": ["dust", "tea", "gold"], "k": 1}).json()
    assert [[one["id"] for one in result["hits"]] for result in answer["results"]] == [["d3"], ["d1"], ["d1"]]
    assert [result["low_confidence"] for result in answer["results"]] == [False, False, True]


def test_a_threshold_drops_hits(client: TestClient) -> None:
    """Prevents documents that do not help where the caller asked for none of these."""
    for threshold, found in ((0.5, ["d2"]), ("auto", ["d2"]), (0.0, ["d2", "d1", "d3"]), (1.0, [])):
        answer = client.post("/v1/search", json={"query": "light", "threshold": threshold}).json()
        assert [one["id"] for one in answer["hits"]] == found, threshold
        assert answer["low_confidence"] is False, "which the threshold of the request does not change"


def test_a_version_without_calibration_has_no_opinion(serve: Callable[..., TestClient]) -> None:
    """Prevents a version from before calibration from calling everything relevant, or failing."""
    client = serve(FakeRegistry(calibration=None))
    answer = client.post("/v1/search", json={"query": "light", "k": 1}).json()
    assert answer["low_confidence"] is None
    assert answer["hits"][0]["relevance_score"] == pytest.approx(0.7310585786)  # log-odds of 1
    refused = client.post("/v1/search", json={"query": "light", "threshold": "auto"})
    assert refused.status_code == 422 and "the version in service has none" in refused.json()["error"]["message"]
    half = replace(CALIBRATION, threshold=None)
    answer = serve(FakeRegistry(calibration=half)).post("/v1/search", json={"query": "light", "k": 1}).json()
    assert answer["low_confidence"] is None


def test_a_filter_reaches_the_retriever(client: TestClient) -> None:
    """Prevents documents that a user may not see."""
    answer = client.post("/v1/search", json={"query": "light", "filter": {"ids": ["d1", "d3"]}}).json()
    assert [one["id"] for one in answer["hits"]] == ["d1", "d3"]
    none = client.post("/v1/search", json={"query": "light", "filter": {"ids": []}}).json()
    assert none["hits"] == [] and none["low_confidence"] is True


def test_rerank_has_the_common_form(client: TestClient) -> None:
    """Prevents clients of Jina, Cohere and vLLM from failing on a key."""
    body = {
        "model": "any",
        "query": "light in the dark",
        "documents": ["a stone", "light in a box", {"text": "dark"}, {"id": "d2"}],
        "top_n": 3,
        "max_chunks_per_doc": 10,  # fields of other servers
        "truncation": True,
    }
    answer = client.post("/v1/rerank", json=body, headers={"X-Request-ID": "mine-7"}).json()
    assert answer == {
        "id": "mine-7",
        "model": "rabtriever@1",
        "results": [
            {"index": 3, "relevance_score": pytest.approx(CALIBRATION.probability(4))},
            {"index": 1, "relevance_score": pytest.approx(CALIBRATION.probability(2))},
            {"index": 2, "relevance_score": pytest.approx(CALIBRATION.probability(1))},
        ],
    }
    shown = client.post("/v1/rerank", json={**body, "top_n": 2, "return_documents": True}).json()["results"]
    assert [one["document"] for one in shown] == [
        {"text": "Torch. gives light in the dark"},
        {"text": "light in a box"},
    ]


def test_equal_scores_keep_the_order_of_the_request(client: TestClient) -> None:
    """Prevents an order that differs from call to call."""
    answer = client.post("/v1/rerank", json={"query": "x", "documents": ["c", "a", "b"]}).json()
    assert [one["index"] for one in answer["results"]] == [0, 1, 2]


def test_an_unknown_id_of_a_rerank_call_is_refused(client: TestClient) -> None:
    """Prevents a document that is not there from being ranked last without a word."""
    answer = client.post("/v1/rerank", json={"query": "x", "documents": [{"id": "d9"}]})
    assert answer.status_code == 422 and "no document is 'd9'" in answer.json()["error"]["message"]


def test_many_texts_are_scored_in_pieces(serve: Callable[..., TestClient]) -> None:
    """Prevents one rerank call from keeping the thread from all searches."""
    scored: list[int] = []
    client = serve(FakeRegistry(scored=scored))
    texts = [f"number {number}" for number in range(2 * RERANK_PIECE + 5)]
    answer = client.post("/v1/rerank", json={"query": f"{RERANK_PIECE + 1}", "documents": texts}).json()
    assert scored == [RERANK_PIECE, RERANK_PIECE, 5]
    assert answer["results"][0]["index"] == RERANK_PIECE + 1 and len(answer["results"]) == len(texts)


def test_documents_come_and_go(serve: Callable[..., TestClient]) -> None:
    """Prevents a change that a later search does not see, or that was not kept."""
    store = FakeStore()
    client = serve(store=store)
    new = {
        "documents": [
            {"id": "d4", "title": "Head torch", "text": "light for both hands", "metadata": {"shelf": 7}},
            {"id": "d1", "text": "x"},
        ]
    }
    assert client.post("/v1/documents", json=new).json() == {"changed": 2, "documents": 4, "version": "1"}
    answer = client.post("/v1/search", json={"query": "both hands", "k": 1}).json()
    assert answer["hits"][0]["id"] == "d4" and set(store.kept) == {"d4", "d1"}
    assert answer["hits"][0]["metadata"] == {"shelf": 7}
    assert client.delete("/v1/documents/d4").json() == {"changed": 1, "documents": 3, "version": "1"}
    assert store.kept["d4"] is None
    again = client.delete("/v1/documents/d4")
    assert again.status_code == 404 and "no document is 'd4'" in again.json()["error"]["message"]


def test_without_a_store_documents_stay(serve: Callable[..., TestClient]) -> None:
    """Prevents a 200 for a change that the next start forgets."""
    client = serve()
    for answer in (
        client.post("/v1/documents", json={"documents": [{"id": "a", "text": "b"}]}),
        client.delete("/v1/documents/d1"),
    ):
        assert answer.status_code == 503 and "--documents" in answer.json()["error"]["message"]


def test_health(client: TestClient) -> None:
    """Prevents an orchestrator from sending queries to a server that cannot answer them."""
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = {"ready": True, "version": "1", "model": "1abcdef01234", "documents": 3, "failure": None}
    assert client.get("/readyz").json() == ready
