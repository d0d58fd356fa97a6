"""A registry of its own with two versions of a retriever, and servers of it, in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from rabtriever.data.beir_io import read_queries
from rabtriever.ops import registry, tracking
from rabtriever.search.retriever import Retriever

HOST = "127.0.0.1"
STARTS = 180  # seconds that a server gets to become ready


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        process: its first process.
        url: its address.
        seconds: from its start to its first answer that says ready.
    """

    process: subprocess.Popen[bytes]
    url: str
    seconds: float

    @property
    def resident(self) -> int:
        """Bytes that it and its children hold in memory."""
        first = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (first, *first.children(recursive=True)))


def make_registry(retriever: Path, root: Path) -> tuple[str, str]:
    """Registers a retriever, and the same one without its last document; returns the numbers of both, the first served.

    From here on this process and its children use the registry in `root`.
    """
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{root.resolve()}/mlruns/mlflow.db"
    whole = Retriever.load(retriever)
    documents = {document.doc_id: document for document in whole.documents[:-1]}
    whole.reindexed(documents).save(root / "shorter", whole.manifest.parents, {"data": whole.manifest.info["data"]})
    report = {"dataset": "benchmark", "systems": {"student": {}}}
    per_query = {"1": {"nDCG@10": 1.0}}
    with tracking.pipeline_run("benchmark") as first:
        one = registry.register(first, retriever, "0" * 16, report, per_query)
    with tracking.pipeline_run("benchmark") as second:
        two = registry.register(second, root / "shorter", "0" * 16, report, per_query)
    registry.promote(one)
    return one.version, two.version


def promote(version: str) -> None:
    """Makes a version the champion."""
    found = registry.get(version)
    assert found is not None, version
    registry.promote(found)


def queries(path: Path) -> list[str]:
    """The texts of a queries.jsonl."""
    return list(read_queries(path).values())


@contextlib.contextmanager
def served(root: Path, *options: str) -> Iterator[Server]:
    """`rabtriever serve` of the champion."""
    port = free_port()
    command = [sys.executable, "-m", "rabtriever.cli", "serve", "--port", str(port), *options]
    with _running(command, root, f"http://{HOST}:{port}", "/readyz") as server:
        yield server


@contextlib.contextmanager
def served_by_mlflow(root: Path) -> Iterator[Server]:
    """`mlflow models serve` of the champion."""
    port = free_port()
    model = f"models:/{registry.MODEL}@{registry.CHAMPION}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", model]
    command += ["--env-manager", "local", "-h", HOST, "-p", str(port)]
    with _running(command, root, f"http://{HOST}:{port}", "/ping") as server:
        yield server


@contextlib.contextmanager
def _running(command: list[str], root: Path, url: str, ready: str) -> Iterator[Server]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
    start = time.perf_counter()
    with (root / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=root, stdout=log, stderr=log, env={**os.environ, "PATH": path}, start_new_session=True
        )
    try:
        while not _answers(url + ready):
            if process.poll() is not None or time.perf_counter() - start > STARTS:
                said = (root / "server.log").read_text()[-2000:]  # the folder is gone afterwards
                raise RuntimeError(f"{' '.join(command)} is not ready: {said}")
            time.sleep(0.05)
        yield Server(process, url, round(time.perf_counter() - start, 2))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
