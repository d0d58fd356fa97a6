"""The routes of the page: what they answer, to whom, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rabtriever.data.beir_io import load_dataset
from rabtriever.ops import registry
from rabtriever.ops.lookup import Found
from rabtriever.server.app import create_app
from rabtriever.server.backend import Backend
from rabtriever.server.settings import ServeSettings, Token
from rabtriever.server.versions import Wanted
from tests.server.page_project import RETRIEVER, FakeLive

ADMIN, READER = {"Authorization": f"Bearer {'a' * 20}"}, {"Authorization": f"Bearer {'b' * 20}"}
TOKENS = (Token("ann", "a" * 20, True), Token("bob", "b" * 20))
QUERY = "a query that nobody has judged"


@pytest.fixture
def serve(page_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TestClient]]:
    """Starts a server of a copy of the project without a registry; takes settings."""
    import shutil

    folder = tmp_path / "served"
    shutil.copytree(page_folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow itself sets it
    with ExitStack() as stack:

        def start(**settings: Any) -> TestClient:
            backend = Backend(
                ServeSettings(**settings),
                look=lambda name: Wanted(Found(folder, "3"), RETRIEVER),
                load=lambda wanted, changes: FakeLive(load_dataset("data/prepared")),
            )
            client = TestClient(create_app(backend, backend.settings), base_url="http://127.0.0.1:8100")
            return stack.enter_context(client)

        yield start


def test_the_page_may_load_nothing_from_elsewhere(serve: Callable[..., TestClient]):
    """Whatever a document's text says, a browser runs no script of it and asks no other host."""
    client = serve()
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    for name, kind in (("main.js", "text/javascript"), ("page.css", "text/css")):
        found = client.get(f"/static/page/{name}")
        assert found.status_code == 200 and found.headers["content-type"].startswith(kind)
    assert client.get("/static/page/index.html").status_code == 404
    assert client.get("/static/page/..%2Flabels.py").status_code == 404


def test_overview_says_what_is_in_service(serve: Callable[..., TestClient]):
    """Figures of another retriever than the one that answers have to be told apart."""
    found = serve().get("/page/overview").json()
    assert found["service"]["version"] == "3" and found["note"] is None
    assert found["caller"] == {"name": "anonymous", "admin": False} and found["tokens"] is False
    assert found["dataset"] == "household" and len(found["examples"]) == 5


def test_reports_of_another_retriever_are_told(serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch):
    """After a rollback the reports are of the version that went."""
    monkeypatch.setattr("tests.server.page_project.RETRIEVER", "f" * 64)
    note = serve().get("/page/overview").json()["note"]
    assert RETRIEVER[:12] in note and "f" * 12 in note


def test_views_without_a_run_say_so(serve: Callable[..., TestClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server in a folder without reports searches all the same."""
    client = serve()
    (tmp_path / "served/reports/evaluation.json").unlink()
    for view in ("losses", "data", "cost", "versions"):
        found = client.get(f"/page/{view}")
        assert found.status_code == 200 and "missing" in found.json(), view
    assert client.get("/page/overview").json()["service"]["ready"] is True
    assert client.post("/page/rank", json={"system": "student", "query": QUERY}).status_code == 200
    assert client.post("/page/judged", json={"query": QUERY}).json() == {"id": None, "grades": {}}


def test_rank_gives_hits_with_their_documents(serve: Callable[..., TestClient]):
    """A hit without a text cannot be shown."""
    client = serve()
    found = client.post("/page/rank", json={"system": "student", "query": QUERY, "k": 4}).json()
    assert len(found["hits"]) == 4 and {doc_id for doc_id, _ in found["hits"]} == set(found["documents"])
    assert found["version"] == "3" and found["ms"] > 0 and found["low_confidence"] in (True, False)
    parts = client.post("/page/explain", json={"query": QUERY, "document": found["hits"][0][0]}).json()
    assert sum(parts["parts"].values()) == pytest.approx(parts["total"]) == pytest.approx(found["hits"][0][1])


def test_recorded_rankings_of_a_query(serve: Callable[..., TestClient]):
    """A link to a query of another data set leads to a message."""
    client = serve()
    query_id = client.get("/page/losses").json()["queries"][0]["id"]
    found = client.get(f"/page/queries/{query_id}").json()
    assert [len(hits) for hits in found["rankings"].values()] == [10] * 4
    refused = client.get("/page/queries/q/of another")
    assert refused.status_code == 404 and "no test query 'q/of another'" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("rank", {"system": "student", "query": " "}, 422),
        ("rank", {"system": "oracle", "query": "tea"}, 422),
        ("rank", {"system": "student", "query": "tea", "k": 101}, 422),
        ("rank", {"system": "bm25", "query": "tea"}, 503),  # nobody has looked at the systems yet
        ("rank", {"system": "teacher", "query": "tea", "documents": ["nothing \ud800"]}, 422),
        ("explain", {"query": "tea", "document": "nothing"}, 404),
        ("labels", {"query": "tea", "document": "nothing", "grade": 1}, 404),
        ("labels", {"query": "tea", "document": "d1", "grade": 7}, 422),
        ("labels", {"query": "x" * 20_001, "document": "d1", "grade": 1}, 422),
        ("promote", {"version": "5", "reason": "why not"}, 403),
        ("rollback", {"reason": "why not"}, 403),
    ],
)
def test_what_is_refused(serve: Callable[..., TestClient], path: str, body: dict[str, Any], status: int):
    """Each with its reason in the one form of an error, none of them a 500."""
    import json

    answer = serve().post(f"/page/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]


def test_a_form_of_another_site_cannot_label(serve: Callable[..., TestClient]):
    """A browser sends a form without asking; JSON it asks for, and CORS is off."""
    body = '{"query": "tea", "document": "d1", "grade": 1}'
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        assert serve().post("/page/labels", content=body, headers={"Content-Type": kind}).status_code == 422
    assert not Path("labels").exists()


def test_tokens_decide_who_reads_and_who_labels(serve: Callable[..., TestClient]):
    """With tokens a reader may look; labels, promotions and rollbacks need the right admin."""
    client = serve(tokens=TOKENS)
    assert client.get("/").status_code == 200 and client.get("/static/page/main.js").status_code == 200
    assert client.get("/page/overview").status_code == 401
    assert client.get("/page/overview", headers=READER).json()["caller"] == {"name": "bob", "admin": False}
    doc_id = next(iter(load_dataset("data/prepared").corpus))
    body = {"query": "tea", "document": doc_id, "grade": 1, "user": "somebody else"}
    assert client.post("/page/labels", json=body, headers=READER).status_code == 403
    assert client.get("/page/labels", headers=READER).json()["writable"] is False
    assert client.post("/page/labels", json=body, headers=ADMIN).json()["user"] == "ann", (
        "the token's name, not a claim"
    )
    assert client.get("/page/labels", headers=ADMIN).json()["total"] == 1
    for path, change in (("promote", {"version": "5", "reason": "r"}), ("rollback", {"reason": "r"})):
        assert client.post(f"/page/{path}", json=change, headers=READER).status_code == 403


def test_promote_and_roll_back(serve: Callable[..., TestClient], page_project: Path, monkeypatch: pytest.MonkeyPatch):
    """The buttons do what the commands do, and say why it was done."""
    client = serve(tokens=TOKENS)
    monkeypatch.chdir(page_project)
    monkeypatch.setattr(registry, "check_answers", lambda version: None)
    done = client.post("/page/promote", json={"version": "5", "reason": "asked for"}, headers=ADMIN)
    assert done.status_code == 200 and done.json()["user"] == "ann" and registry.champion().version == "5"
    again = client.post("/page/promote", json={"version": "5", "reason": "asked for"}, headers=ADMIN)
    assert again.status_code == 422 and "champion already" in again.json()["error"]["message"]
    assert client.post("/page/promote", json={"version": "77", "reason": "r"}, headers=ADMIN).status_code == 404
    back = client.post("/page/rollback", json={"to": "3", "reason": "5 was slow"}, headers=ADMIN)
    assert back.json()["before"] == "5" and registry.champion().version == "3"
    newest = client.get("/page/versions", headers=READER).json()["versions"]
    assert newest[0]["withdrawn"] is True and newest[2]["by_hand"][0]["reason"] == "5 was slow"
