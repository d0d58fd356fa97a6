"""/docs and /openapi.json: every field is described, every example works, nothing comes from elsewhere."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

from fastapi.testclient import TestClient

from rabtriever.data.beir_io import Document
from rabtriever.server.reference import docs_page, examples
from tests.server.fakes import DOCUMENTS, FakeRegistry, FakeStore

KNOWN = {**DOCUMENTS, "d426": Document("d426", "Hot tap", "thaws")}


def described(api: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in api["components"]["schemas"].items():
        for field, told in schema.get("properties", {}).items():
            yield f"{name}.{field}", told


def test_every_field_is_described(client: TestClient) -> None:
    """Prevents a field whose meaning has to be guessed."""
    api = client.get("/openapi.json").json()
    missing = [name for name, told in described(api) if not told.get("description") and "$ref" not in told]
    assert not [name for name in missing if "ValidationError" not in name]
    for path, methods in api["paths"].items():
        for told in methods.values():
            assert told["summary"] and told["description"], path


def test_every_route_is_described(client: TestClient) -> None:
    """Prevents a route that nobody finds."""
    assert set(client.get("/openapi.json").json()["paths"]) == {
        "/v1/search",
        "/v1/rerank",
        "/v1/documents",
        "/v1/documents/{id}",
        "/healthz",
        "/readyz",
        "/metrics",
    }


def test_every_example_works(serve: Any) -> None:
    """Prevents a first try that fails."""
    client = serve(FakeRegistry(corpus=KNOWN), FakeStore())
    api = client.get("/openapi.json").json()
    asked = [
        (method, command)
        for path, methods in api["paths"].items()
        for method in methods
        for command in examples(api, "http://127.0.0.1:8100", path, method)
    ]
    assert len(asked) >= 9
    for method, command in asked:
        words = shlex.split(command.replace("\\\n", " "))
        address = next(word for word in words if word.startswith("http://127.0.0.1:8100"))
        body = json.loads(words[words.index("-d") + 1]) if "-d" in words else None
        answer = client.request(method, address, json=body)
        assert answer.status_code == 200, f"{command}\n{answer.text}"


def test_the_page_is_whole_and_asks_for_nothing(client: TestClient) -> None:
    """Prevents an empty page on a machine without network: FastAPI's own loads its scripts from a CDN."""
    answer = client.get("/docs")
    assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.text
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!#|/openapi.json)[^"]*"', page)
    api = client.get("/openapi.json").json()
    for name in ("relevance_score", "low_confidence", "top_n", "filter", "metadata", "return_documents"):
        assert f"<code>{name}</code>" in page
    assert page.count("<section") == sum(len(methods) for methods in api["paths"].values())
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


def test_texts_are_escaped() -> None:
    """Prevents markup of a Host header from running in the page."""
    api = {"info": {"title": "<b>", "version": "1", "description": "<i>"}, "paths": {}}
    page = docs_page(api, "http://<script>")
    assert "<b>" not in page and "<i>" not in page and "<script>" not in page
