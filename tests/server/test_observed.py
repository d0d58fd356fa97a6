"""What an operator sees: one line a request, and figures for Prometheus."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from rabtriever.server.settings import Token
from tests.server.fakes import FakeStore


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.message) for record in caplog.records if record.name == "rabtriever.access"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "rabtriever.access")
    return caplog


def test_each_request_is_one_line_without_its_text(client: TestClient, log: pytest.LogCaptureFixture) -> None:
    """Prevents a log with what people asked, and one that needs a parser of its own."""
    client.post("/v1/search", json={"query": "a secret\nneed"}, headers={"X-Request-ID": "r-1"})
    client.delete("/v1/documents/unknown?secret=1")
    client.get("/nothing")
    found = lines(log)
    assert [(one["route"], one["status"]) for one in found] == [
        ("/v1/search", 200),
        ("/v1/documents/{id}", 404),
        ("other", 404),
    ]
    first = found[0]
    assert set(first) == {"time", "request_id", "caller", "method", "route", "status", "ms", "queries"}
    assert first["request_id"] == "r-1" and first["queries"] == 1 and first["caller"] == "anonymous"
    assert "secret" not in log.text and all("\n" not in record.message for record in log.records)


def test_texts_are_logged_where_that_was_asked_for(
    serve: Callable[..., TestClient], log: pytest.LogCaptureFixture
) -> None:
    """Prevents a switch without effect, and a line of the log that a query has written."""
    client = serve(log_queries=True)
    client.post("/v1/search", json={"queries": ["a\nb", "c"]})
    assert lines(log)[0]["queries"] == ["a\nb", "c"] and "a\\nb" in log.text


def test_the_caller_is_named(serve: Callable[..., TestClient], log: pytest.LogCaptureFixture) -> None:
    """Prevents a change that nobody has made."""
    client = serve(store=FakeStore(), tokens=(Token("ops", "x" * 16, admin=True),))
    client.delete("/v1/documents/d1", headers={"Authorization": f"Bearer {'x' * 16}"})
    client.delete("/v1/documents/d1")
    assert [(one["caller"], one["status"]) for one in lines(log)] == [("ops", 200), (None, 401)]
    assert "x" * 16 not in log.text


def test_figures_count_what_happened(client: TestClient) -> None:
    """Prevents a dashboard of zeros, and labels that a visitor can multiply."""
    client.post("/v1/search", json={"queries": ["tea", "gold", "light"]})
    client.post("/v1/search", json={"query": " "})
    client.post("/v1/documents", json={"documents": [{"id": "new", "text": "b"}]})
    for path in ("/a", "/b", "/c"):
        client.get(path)
    answer = client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = set(answer.text.splitlines())
    for line in (
        'rabtriever_requests_total{method="POST",route="/v1/search",status="200"} 1.0',
        'rabtriever_requests_total{method="POST",route="/v1/search",status="422"} 1.0',
        'rabtriever_requests_total{method="GET",route="other",status="404"} 3.0',
        'rabtriever_request_seconds_count{route="/v1/search"} 2.0',
        "rabtriever_batch_queries_sum 3.0",
        "rabtriever_batch_queries_count 1.0",
        "rabtriever_batch_seconds_count 1.0",
        "rabtriever_waiting_queries 0.0",
        "rabtriever_requests_in_progress 1.0",
        "rabtriever_queries_total 3.0",
        "rabtriever_low_confidence_queries_total 1.0",
        "rabtriever_documents 4.0",
        'rabtriever_version_info{model="1abcdef01234",version="1"} 1.0',
        "rabtriever_swaps_total 0.0",
        "rabtriever_swap_failing 0.0",
    ):
        assert line in found, line
    assert "process_resident_memory_bytes" in answer.text
