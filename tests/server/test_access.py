"""Tokens, rights and CORS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from rabtriever.server import access
from rabtriever.server.access import Access, Caller, parse_tokens, read_tokens
from rabtriever.server.errors import ApiError
from rabtriever.server.settings import Token
from tests.server.fakes import FakeStore
from tests.server.test_refusals import refusal

READER, ADMIN = Token("app", "r" * 16), Token("ops", "a" * 16, admin=True)
SEARCH, DOCUMENTS = {"query": "light"}, {"documents": [{"id": "d4", "text": "new"}]}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def guarded(serve: Callable[..., TestClient]) -> TestClient:
    """A server with a reader's and an admin's token."""
    return serve(store=FakeStore(), tokens=(READER, ADMIN))


def test_a_token_is_needed_where_there_are_some(guarded: TestClient) -> None:
    """Prevents answers for whoever reaches the port."""
    for headers in ({}, bearer("wrong" * 5), {"Authorization": f"Basic {READER.secret}"}, bearer("")):
        answer = guarded.post("/v1/search", json=SEARCH, headers=headers)
        what = "an unknown token" if headers else "no token"
        message = f"the request has {what}, expected the header Authorization: Bearer TOKEN"
        assert refusal(answer, 401) == message and answer.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/nothing", "/mcp"):
        assert guarded.get(path).status_code == 401
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert guarded.get(path).status_code == 200
    assert guarded.post("/v1/search", json=SEARCH, headers=bearer(READER.secret)).status_code == 200
    assert (
        guarded.post("/v1/search", json=SEARCH, headers={"Authorization": f"bearer {ADMIN.secret}"}).status_code == 200
    )


def test_documents_need_an_admin(guarded: TestClient) -> None:
    """Prevents an application that only searches from emptying the corpus."""
    refused = guarded.post("/v1/documents", json=DOCUMENTS, headers=bearer(READER.secret))
    assert "the token lacks the right admin" in refusal(refused, 403)
    refusal(guarded.delete("/v1/documents/d1", headers=bearer(READER.secret)), 403)
    assert guarded.post("/v1/documents", json=DOCUMENTS, headers=bearer(ADMIN.secret)).status_code == 200
    assert guarded.delete("/v1/documents/d4", headers=bearer(ADMIN.secret)).status_code == 200


def test_an_open_server_without_tokens_takes_no_changes(serve: Callable[..., TestClient]) -> None:
    """Prevents everybody on the network from changing documents because somebody set --host."""
    client = serve(store=FakeStore(), host="0.0.0.0")
    assert client.post("/v1/search", json=SEARCH).status_code == 200
    assert "the server has no tokens" in refusal(client.post("/v1/documents", json=DOCUMENTS), 403)


def test_promoting_needs_a_token_always() -> None:
    """Prevents a page without a login from choosing the version in service."""
    with pytest.raises(ApiError, match="the server has no tokens") as refused:
        Access((), loopback=True).check_admin(Caller())
    assert refused.value.status == 403
    guarded = Access((READER, ADMIN), loopback=True)
    with pytest.raises(ApiError, match="lacks the right admin"):
        guarded.check_admin(guarded.caller(f"Bearer {READER.secret}", "/"))
    guarded.check_admin(guarded.caller(f"Bearer {ADMIN.secret}", "/"))


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents the time of an answer from telling how much of a token was right."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(access.hmac, "compare_digest", compare)
    assert Access((READER, ADMIN), loopback=True).caller(f"Bearer {READER.secret}", "/v1/search").name == "app"
    assert len(compared) == 2 and {len(part) for pair in compared for part in pair} == {32}


def test_tokens_are_read_from_a_text(tmp_path: Path) -> None:
    """Prevents a token that everybody takes for another one."""
    path = tmp_path / "tokens"
    path.write_text(f"# who asks\napp:{READER.secret}\n\nops:{ADMIN.secret}:admin\n")
    assert read_tokens(path) == (READER, ADMIN)
    assert parse_tokens(f"app:{READER.secret}, ops:{ADMIN.secret}:admin", "X") == (READER, ADMIN)
    assert parse_tokens("", "X") == ()
    path.write_text("# none\n")
    with pytest.raises(ValueError, match="has no token, expected lines NAME:TOKEN"):
        read_tokens(path)
    with pytest.raises(FileNotFoundError):
        read_tokens(tmp_path / "none")


@pytest.mark.parametrize("entry", ["secretsecretsecret", "app:short", f"app:{'x' * 16}:root", f"a b:{'x' * 16}", ":"])
def test_a_wrong_token_is_told_without_it(entry: str) -> None:
    """Prevents a short token, and one that is printed into a log."""
    with pytest.raises(ValueError, match="token 2 of X is not NAME:TOKEN") as told:
        parse_tokens(f"ok:{'k' * 16}\n{entry}", "X")
    assert entry.rpartition(":")[2] not in str(told.value) or len(entry) < 3 or ":root" in entry


@pytest.mark.parametrize(("other", "what"), [(f"app:{'y' * 16}", "name"), (f"other:{'x' * 16}", "secret")])
def test_tokens_are_different(other: str, what: str) -> None:
    """Prevents a log that names the wrong caller."""
    with pytest.raises(ValueError, match=f"has a {what} twice"):
        parse_tokens(f"app:{'x' * 16}\n{other}", "X")


def test_other_origins_read_nothing_by_default(client: TestClient, serve: Callable[..., TestClient]) -> None:
    """Prevents any web page from reading answers in its visitor's name."""
    origin = {"Origin": "https://app.example"}
    assert "access-control-allow-origin" not in client.post("/v1/search", json=SEARCH, headers=origin).headers
    chosen = serve(cors_origins=("https://app.example",), tokens=(READER,))
    preflight = chosen.options("/v1/search", headers={**origin, "Access-Control-Request-Method": "POST"})
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    refused = chosen.post("/v1/search", json=SEARCH, headers=origin)
    assert refused.status_code == 401 and "access-control-allow-origin" in refused.headers
    other = chosen.options(
        "/v1/search", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    )
    assert "access-control-allow-origin" not in other.headers
