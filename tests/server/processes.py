"""A project with registered retrievers, and `rabtriever serve` as a process of its own over it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.toy import ROOT, wait_for

Answer = tuple[int, Any]


class Client:
    """Asks a server over one connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Status and content of an answer."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        content = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode()


class Server:
    """A running server.

    Attributes:
        process: the process.
        port: where it listens.
        log: file with what it says on stderr.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def client(self) -> Client:
        return Client(self.port)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        return self.client().ask(method, path, body)

    def figure(self, name: str) -> float:
        """One figure of /metrics."""
        lines = self.ask("GET", "/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"rabtriever_{name} ")).split()[-1])


@contextlib.contextmanager
def served(folder: Path, *words: str) -> Iterator[Server]:
    """`rabtriever serve` in a folder, on a free port; ended afterwards if it still runs."""
    log = folder / f"serve-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "rabtriever.cli", "serve", "--port", "0", "--set", "poll_seconds=0.1", *words]
    kept = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI",)}
    environment = {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=file)
    try:
        yield Server(process, _port(process, log), log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    found: list[str] = []

    def told() -> bool:
        assert process.poll() is None, log.read_text()
        found[:] = re.findall(r"running on http://127\.0\.0\.1:(\d+)", log.read_text())
        return bool(found)

    wait_for(told, 180)
    return int(found[0])


class Load:
    """Threads that ask the same thing again and again.

    Attributes:
        answers: all answers; an exception in the place of one that did not come.
    """

    def __init__(self, server: Server, threads: int, ask: Callable[[Client], Answer]) -> None:
        self.answers: list[Answer | Exception] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(server, ask)) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, server: Server, ask: Callable[[Client], Answer]) -> None:
        client = server.client()
        while not self._end.is_set():
            try:
                self.answers.append(ask(client))
            except Exception as error:
                self.answers.append(error)
                client = server.client()
