"""Requests that are refused: one form of error, before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rabtriever.server.errors import TYPES
from tests.server.fakes import FakeRegistry, FakeStore

JSON = {"content-type": "application/json"}


def refusal(answer: Any, status: int) -> str:
    """The message of a refused request, after checking its form."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert answer.json() == {"error": error} and set(error) == {"type", "message", "request_id"}
    assert error["type"] == TYPES[status] and error["request_id"] == answer.headers["x-request-id"]
    return error["message"]


SMALL = {
    "queries": 2,
    "query_characters": 20,
    "k": 5,
    "rerank_documents": 2,
    "change_documents": 2,
    "body_bytes": 2_000,
}
DOCUMENT = {"id": "a", "text": "b"}


@pytest.mark.parametrize(
    ("route", "body", "message"),
    [
        ("search", {}, "the request has neither query nor queries, expected one of them"),
        ("search", {"query": "a", "queries": ["b"]}, "the request has both query and queries"),
        ("search", {"query": " "}, "the query is blank; write what is wanted"),
        ("search", {"query": "\ud800"}, r"the query is '\ud800', which is not Unicode text"),
        ("search", {"queries": []}, "queries is []"),
        (
            "search",
            {"queries": ["a", "b", "c"]},
            "the request has 3 queries, expected at most 2; send several requests",
        ),
        ("search", {"query": "x" * 21}, "the request has 21 characters in a query, expected at most 20; shorten it"),
        ("search", {"query": "a", "k": 6}, "the request has 6 documents wanted (k), expected at most 5"),
        ("search", {"query": "a", "k": 0}, "k is 0: input should be greater than or equal to 1"),
        ("search", {"query": "a", "k": 2.5}, "k is 2.5"),
        ("search", {"query": "a", "k": True}, "k is True"),
        ("search", {"query": "a", "threshold": 1.5}, "threshold is 1.5: input should be less than or equal to 1"),
        ("search", {"query": "a", "threshold": "high"}, "threshold is 'high': input should be 'auto'"),
        ("search", {"query": "a", "top_k": 3}, "top_k is 3: extra inputs are not permitted"),
        ("search", {"query": "a", "filter": {"field": {}}}, "filter.field is {}: extra inputs are not permitted"),
        ("search", ["a"], "the body is ['a']"),
        ("rerank", {"query": "a"}, "documents is missing; /docs has examples"),
        ("rerank", {"query": "a", "documents": []}, "documents is []"),
        ("rerank", {"query": "a", "documents": ["a"] * 3}, "the request has 3 documents, expected at most 2"),
        ("rerank", {"query": "x" * 21, "documents": ["a"]}, "the request has 21 characters in a query"),
        (
            "rerank",
            {"query": "a", "documents": [7]},
            "documents.0 is 7: expected a text, an object with text",
        ),
        ("rerank", {"query": "a", "documents": ["\udfff"]}, "a value is not JSON"),
        ("rerank", {"query": "a", "documents": [{"text": "\udfff"}]}, "a value is not JSON"),
        ("rerank", {"query": "a", "documents": [{"id": "a", "x": 1}]}, "documents.0.x is 1: extra inputs are not"),
        ("rerank", {"query": "a", "documents": [{"txt": "a"}]}, "documents.0.text is missing"),
        ("documents", {"documents": []}, "documents is []"),
        ("documents", {"documents": [DOCUMENT, DOCUMENT]}, "the id 'a' is there twice"),
        ("documents", {"documents": [{**DOCUMENT, "id": c} for c in "abc"]}, "the request has 3 documents"),
        ("documents", {"documents": [{"id": "a b", "text": "c"}]}, "documents.0.id is 'a b'"),
        ("documents", {"documents": [{"id": "a", "text": " "}]}, "document 'a' is blank; give it a title or a text"),
        ("documents", {"documents": [{**DOCUMENT, "metadata": {"a": float("nan")}}]}, "a value is not JSON"),
        ("documents", {"documents": [{**DOCUMENT, "text": "\ud800"}]}, "a value is not JSON"),
    ],
)
def test_what_is_wrong_is_told(serve: Callable[..., TestClient], route: str, body: Any, message: str) -> None:
    """Prevents a 500, a silent correction, or a message that does not say what was found."""
    calls: list[int] = []
    client = serve(FakeRegistry(calls=calls), FakeStore(), **SMALL)
    answer = client.post(f"/v1/{route}", content=json.dumps(body), headers=JSON)
    assert message in refusal(answer, 422)
    assert calls == [], "something was computed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"query": "a"', "the body is not JSON (Expecting ',' delimiter); send a JSON object"),
        (b'{"query": "\xff"}', "the body"),
        (b"[" * 100_000, "the body"),
        (b'{"query": "a", "k": ' + b"9" * 5_000 + b"}", "the body"),
    ],
    ids=["cut", "no UTF-8", "deep", "number"],
)
def test_what_is_not_json_is_told(client: TestClient, content: bytes, message: str) -> None:
    """Prevents a parser's exception from being a 500."""
    assert message in refusal(client.post("/v1/search", content=content, headers=JSON), 400)


def test_a_body_without_its_type_is_refused(client: TestClient) -> None:
    """Prevents a form of any web page from changing documents: browsers send such a body without asking."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        body = '{"documents": [{"id": "a", "text": "b"}]}'
        answer = client.post("/v1/documents", content=body, headers={"content-type": kind})
        assert "Content-Type: application/json" in refusal(answer, 422)


def test_a_large_body_is_refused(serve: Callable[..., TestClient]) -> None:
    """Prevents a request from filling the memory, whether it says its length or not."""
    client = serve(**SMALL)
    body = b'{"query": "' + b"x" * 2_000 + b'"}'
    message = "the body has 2,013 bytes, expected at most 2,000; send several requests"
    assert refusal(client.post("/v1/search", content=body, headers=JSON), 413) == message
    pieces = iter([body[:1_000], body[1_000:]])
    assert refusal(client.post("/v1/search", content=pieces, headers=JSON), 413) == message


def test_paths_and_methods_that_are_not_there(client: TestClient) -> None:
    """Prevents a second form of error for what no route answers."""
    assert refusal(client.get("/v2/search"), 404) == "there is no '/v2/search'; /docs lists what there is"
    assert refusal(client.get("/v1/search"), 405) == "GET is not possible here, expected POST"
    assert "there is no" in refusal(client.delete("/v1/documents/a/b"), 404)


def test_an_unexpected_failure_is_told_without_its_details(client: TestClient) -> None:
    """Prevents a stack trace in an answer, and a failure without the id that the log has."""
    message = refusal(client.post("/v1/search", json={"query": "poison"}), 500)
    assert message == "the server failed; its log has the request's id and the reason"


def test_a_request_id_is_kept_only_where_it_is_one(client: TestClient) -> None:
    """Prevents lines of the log that somebody else has written."""
    for sent, kept in (("abc-1.2_X", True), ("a b", False), ("x" * 65, False), ('{"a":1}', False)):
        found = client.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"]
        assert (found == sent) is kept


def test_another_host_is_refused(client: TestClient, serve: Callable[..., TestClient]) -> None:
    """Prevents a web page from reading a loopback server under a name of its own (DNS rebinding)."""
    assert "expected a loopback name" in refusal(client.get("/readyz", headers={"host": "evil.example"}), 403)
    for host in ("localhost:8100", "127.0.0.1", "[::1]:8100"):
        assert client.get("/readyz", headers={"host": host}).status_code == 200
    assert serve(hosts=("search.example",)).get("/readyz", headers={"host": "search.example"}).status_code == 200
    assert serve(host="0.0.0.0").get("/readyz", headers={"host": "any.example"}).status_code == 200
