"""An agent's tools, asked by the SDK's own client: in memory, over HTTP and over stdin and stdout."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi.testclient import TestClient
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from rabtriever.search.retriever import Retriever
from rabtriever.server.app import create_app
from rabtriever.server.mcp import mcp_server
from rabtriever.server.settings import Token
from tests.closure import ROOT
from tests.server.fakes import backend
from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401
from tests.toy import wait_for

SECRET = "0123456789abcdef"
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "tests", "version": "1"},
    },
}
ACCEPTS = {"accept": "application/json, text/event-stream"}


def asked(connect: Callable[[], Any], *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers to some calls, after the list of tools."""

    async def ask() -> list[Any]:
        async with connect() as client:
            return [await client.list_tools(), *[await client.call_tool(*call) for call in calls]]

    return asyncio.run(asyncio.wait_for(ask(), 300))


def in_memory(**settings: Any) -> Any:
    """A client of a server in this process, whose worker thread ends with the test."""
    return Client(mcp_server(backend(**settings)))


@contextmanager
def listening(**settings: Any) -> Iterator[str]:
    """The address of a server on a free port of this machine."""
    made = backend(**settings)
    server = uvicorn.Server(uvicorn.Config(create_app(made, made.settings), port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_for(lambda: server.started, 60)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join()


def test_tools_describe_themselves():
    """A model is given a tool without a word on what it does, or on one of its arguments."""
    (listed,) = asked(in_memory)
    tools = {tool.name: tool for tool in listed.tools}
    assert set(tools) == {"search", "rerank"}
    for tool in tools.values():
        assert tool.description and tool.annotations.read_only_hint
        assert all(argument["description"] for argument in tool.input_schema["properties"].values()), tool.name
        assert tool.output_schema["description"]
    assert tools["search"].input_schema["required"] == ["query"]
    assert tools["search"].description.splitlines()[-1].startswith("Where low_confidence"), "no indented docstring"


def test_answers_have_a_structure():
    """A model has to read numbers out of prose."""
    _, found, ordered = asked(
        in_memory,
        ("search", {"query": "water for tea", "k": 2, "threshold": 0.5}),
        ("rerank", {"query": "water for tea", "documents": ["dust", "tea", "water for tea"], "top_n": 2}),
    )
    assert [hit["id"] for hit in found.structured_content["hits"]] == ["d1"]
    assert found.structured_content["low_confidence"] is False and found.structured_content["version"] == "1"
    assert json.loads(found.content[0].text) == found.structured_content
    assert [one["index"] for one in ordered.structured_content["results"]] == [2, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("search", {"query": " "}), "the query is blank; write what is wanted"),
        (("search", {"query": "tea", "k": 7}), "expected at most 5; ask for fewer"),
        (("search", {"query": "tea", "k": 0}), "greater than or equal to 1"),
        (("rerank", {"query": "tea", "documents": []}), "at least 1 item"),
    ],
)
def test_a_refusal_says_what_to_do(call: tuple[str, dict[str, Any]], message: str):
    """A model repeats a call that cannot succeed."""
    _, refused = asked(lambda: in_memory(k=5), call)
    assert refused.is_error and message in refused.content[0].text


def test_a_fault_stays_inside():
    """An exception tells strangers about the server."""
    _, refused = asked(in_memory, ("search", {"query": "poison"}))
    assert refused.is_error and "cannot take" not in refused.content[0].text


def test_over_http():
    """The route answers requests of a test, and none of a real client."""
    with listening(tokens=(Token("me", SECRET),)) as address:

        def connect() -> Any:
            http = httpx2.AsyncClient(headers={"Authorization": f"Bearer {SECRET}"})
            return Client(streamable_http_client(address, http_client=http))

        listed, found = asked(connect, ("search", {"query": "water for tea", "k": 1}))
    assert len(listed.tools) == 2
    assert found.structured_content["hits"][0]["id"] == "d1"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8100"}, 200),
        ({"origin": "https://allowed.example"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer " + 16 * "x"}, 401),
    ],
)
def test_who_may_ask(serve: Callable[..., TestClient], headers: dict[str, str], status: int):
    """A page of another site reads the corpus through a user's browser, or a stranger without a token."""
    client = serve(tokens=(Token("me", SECRET),), cors_origins=("https://allowed.example",))
    answer = client.post("/mcp", json=HELLO, headers={**ACCEPTS, "authorization": f"Bearer {SECRET}", **headers})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["result"]["serverInfo"]["name"] == "rabtriever"
    else:
        assert answer.json()["error"]["type"] in ("forbidden", "unauthorized")


def test_bodies_have_a_limit(serve: Callable[..., TestClient]):
    """One request fills the memory, where its length is told or where it is not."""
    client = serve(body_bytes=2_000)
    large = json.dumps({**HELLO, "padding": "x" * 3_000}).encode()
    headers = {**ACCEPTS, "content-type": "application/json"}
    told = client.post("/mcp", content=large, headers=headers)
    untold = client.post("/mcp", content=iter([large]), headers=headers)
    assert (told.status_code, untold.status_code) == (413, 413), untold.text


def environment() -> dict[str, str]:
    """What a server in a process of its own needs."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def test_over_stdin_and_stdout(folder: Path, tmp_path: Path):  # noqa: F811
    """The command that an agent starts does not answer, or another retriever than it was given."""
    words = ["-m", "rabtriever.cli", "mcp", "--model", str(folder)]
    server = StdioServerParameters(command=sys.executable, args=words, env=environment(), cwd=tmp_path)
    query = "a hot drink would be nice"
    with open(tmp_path / "stderr", "w") as errors:
        _, found = asked(lambda: Client(stdio_client(server, errlog=errors)), ("search", {"query": query, "k": 3}))
    hits = Retriever.load(folder).search(query, 3)
    assert [hit["id"] for hit in found.structured_content["hits"]] == [hit.doc_id for hit in hits]


NOISY = """
import os, sys
import rabtriever.server.backend as module
from rabtriever import cli
from tests.server import fakes

def noisy(settings, store):
    print("loading")
    return fakes.backend(model=settings.model)

def search(self, queries):
    print("searching")
    os.write(1, b"from C")
    return found(self, queries)

found, fakes.FakeLive.search, module.Backend = fakes.FakeLive.search, search, noisy
sys.exit(cli.main(["mcp", "--model", "."]))
"""


def test_stdout_has_nothing_but_the_protocol():
    """A library's print ends the session of an agent."""
    call = {"name": "search", "arguments": {"query": "tea"}}
    messages = [
        HELLO,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
    ]
    with subprocess.Popen(
        [sys.executable, "-c", NOISY],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        server.stdin.write("".join(json.dumps(message) + "\n" for message in messages))
        server.stdin.flush()
        answers = [json.loads(server.stdout.readline()) for _ in range(2)]
        rest, errors = server.communicate(timeout=60)
    assert [answer["id"] for answer in answers] == [1, 2] and rest == ""
    assert server.returncode == 0, "the end of stdin is the end of the program"
    assert answers[1]["result"]["structuredContent"]["hits"][0]["id"] == "d1"
    assert "loading" in errors and "searching" in errors and "from C" in errors
