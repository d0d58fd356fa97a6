"""Fixtures of the server's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rabtriever.server.app import create_app
from tests.server.fakes import FakeRegistry, FakeStore, backend


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """Starts an app over a fake retriever in this process; takes the registry, the store and settings."""
    with ExitStack() as stack:

        def start(registry: FakeRegistry | None = None, store: FakeStore | None = None, **settings: Any) -> TestClient:
            made = backend(registry, store, **settings)
            app = create_app(made, made.settings)
            return stack.enter_context(TestClient(app, base_url="http://127.0.0.1:8100", raise_server_exceptions=False))

        yield start


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    """A client of a server with default settings and a store."""
    return serve(store=FakeStore())
