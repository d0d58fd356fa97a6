"""Requests that nobody would write: every route, no 500, and every answer as the description says."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from rabtriever.server.app import create_app
from tests.server.fakes import FakeStore, backend
from tests.toy import wait_for

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROUTES = [
    ("POST", "/v1/search"),
    ("POST", "/v1/rerank"),
    ("POST", "/v1/documents"),
    ("DELETE", "/v1/documents/{id}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def api() -> Iterator[schemathesis.schemas.BaseSchema]:
    """The description of a running server over a fake retriever, whose limits are low enough to be met."""
    made = backend(store=FakeStore(), body_bytes=20_000, k=50, queries=5, query_characters=200, rerank_documents=10)
    server = uvicorn.Server(uvicorn.Config(create_app(made, made.settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, 30)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    server.should_exit = True
    thread.join(30)


def test_every_route_is_asked(api: schemathesis.schemas.BaseSchema) -> None:
    """Prevents a new route that is not among those below."""
    assert {(method.upper(), path) for path in api for method in api[path]} == set(ROUTES)


VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [(*route, VALID) for route in ROUTES] + [(*route, INVALID) for route in ROUTES if route[0] == "POST"]


@pytest.mark.parametrize(("method", "path", "mode"), CASES, ids=str)
def test_every_route_answers_as_it_says(
    api: schemathesis.schemas.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """Prevents a 500, an undescribed status, and an answer that a generated client cannot read."""
    asked: list[int] = []

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call()
        asked.append(answer.status_code)
        case.validate_response(answer, checks=CHECKS)

    ask()
    assert asked
