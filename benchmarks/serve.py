"""Measures `rabtriever serve` over loopback, beside MLflow's own server of the same version.

`python benchmarks/serve.py models/retriever data/household/queries.jsonl` takes a quarter of an hour, and writes
docs/evaluation/serve.json; `python docs/update_tables.py` then redraws its table. Client and server share the machine's
cores, so compare the ratios. It has a registry of its own, and changes nothing of the project's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import serve_load, serve_project  # noqa: E402
from rabtriever.search.retriever import Retriever  # noqa: E402

REPORT = ROOT / "docs/evaluation/serve.json"
CONNECTIONS = (1, 16, 64)
WARM_UP, SOAK_CONNECTIONS, KILLS, K, ENCODED = 3.0, 8, 10, 10, 200
ADDED_EACH = 5.0  # seconds between two added documents


def main() -> None:
    """Measures all, or `--only` some parts, and keeps the other parts of the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("retriever", type=Path, help="a retriever folder")
    parser.add_argument("queries", type=Path, help="a queries.jsonl to ask")
    parser.add_argument("--seconds", type=float, default=15, help="of each load, 15 by default")
    parser.add_argument("--minutes", type=float, default=10, help="of the load with a hot swap in it, 10 by default")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="parts to measure; all by default")
    arguments = parser.parse_args()
    report = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="serve-") as scratch:
        root = Path(scratch)
        versions = serve_project.make_registry(arguments.retriever.resolve(), root)
        texts = serve_project.queries(arguments.queries)
        for part in arguments.only or PARTS:
            print(f"serve: {part}", flush=True)
            report[part] = PARTS[part](root, texts, versions, arguments)
            print(json.dumps(report[part], indent=1), flush=True)
            REPORT.write_text(json.dumps(report, indent=1) + "\n")


def throughput(root: Path, texts: list[str], _: tuple[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Requests a second and latencies of both servers, and the seconds until each is ready."""
    ours = [{"query": text, "k": K} for text in texts]
    theirs = [{"dataframe_records": [{"query": text}], "params": {"k": K}} for text in texts]
    found: dict[str, Any] = {"cores": os.cpu_count(), "k": K}
    with serve_project.served(root) as server:
        found["rabtriever"] = _loads(server, "/v1/search", ours, arguments.seconds)
    found["encoder_ms"] = _encoder_ms(root, texts)
    found["encoder_share"] = round(found["encoder_ms"] / found["rabtriever"]["1"]["p50"], 3)
    with serve_project.served_by_mlflow(root) as server:
        found["mlflow"] = _loads(server, "/invocations", theirs, arguments.seconds)
    found["ratio"] = {
        name: round(found["rabtriever"][name]["requests_per_second"] / row["requests_per_second"], 1)
        for name, row in found["mlflow"].items()
        if isinstance(row, dict)
    }
    return found


def _loads(server: serve_project.Server, route: str, bodies: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    rows: dict[str, Any] = {"ready_after_seconds": server.seconds}
    serve_load.load(server.url + route, bodies, 2, WARM_UP)
    for connections in CONNECTIONS:
        seen = serve_load.load(server.url + route, bodies, connections, seconds)
        rows[str(connections)] = seen.row
        if seen.failures:
            print(f"serve: failed: {seen.failures}", file=sys.stderr)
    return rows


def _encoder_ms(root: Path, texts: list[str]) -> float:
    """Milliseconds in which one query is encoded, the median of many."""
    retriever = Retriever.load(root / "shorter")
    seconds = []
    for text in texts[:ENCODED]:
        start = time.perf_counter()
        retriever.encode([text])
        seconds.append(time.perf_counter() - start)
    return round(1000 * float(np.median(seconds)), 2)


def soak(root: Path, texts: list[str], versions: tuple[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Load with documents added all the time, a hot swap at a third and a rollback at two thirds of it."""
    bodies, seconds = [{"query": text, "k": K} for text in texts], 60 * arguments.minutes
    first, second = versions
    with serve_project.served(root, "--set", "poll_seconds=2") as server:
        return asyncio.run(_soaked(server, bodies, seconds, first, second))


async def _soaked(
    server: serve_project.Server, bodies: list[dict[str, Any]], seconds: float, first: str, second: str
) -> dict[str, Any]:
    swaps: list[str] = []
    failures: Counter[str] = Counter()
    memory: list[int] = []

    def swapped(version: str) -> Any:
        async def action() -> None:
            await asyncio.to_thread(serve_project.promote, version)
            swaps.append(await _served_version(server, version))

        return action

    async def measured() -> None:
        memory.append(server.resident)

    searching = serve_load.loaded(server.url + "/v1/search", bodies, SOAK_CONNECTIONS, seconds)
    actions = [(1 / 3, swapped(second)), (2 / 3, swapped(first)), (0.2, measured), (0.99, measured)]
    adding = _adding(server, seconds, failures)
    seen, _, added = await asyncio.gather(searching, serve_load.meanwhile(seconds, actions), adding)
    failures.update(seen.failures)  # a Counter adds
    return {
        "minutes": round(seconds / 60, 1),
        "connections": SOAK_CONNECTIONS,
        **seen.row,
        "documents_added": added,
        "failed": failures.total(),
        "failures": failures,
        "versions_served": swaps,
        "resident_megabytes": [round(size / 2**20) for size in memory],
        "resident_change_percent": round(100 * (memory[-1] / memory[0] - 1), 1),
    }


async def _served_version(server: serve_project.Server, wanted: str) -> str:
    """The version that answers, once it is the wanted one; the last one seen where it is not within a minute."""
    found = ""
    for _ in range(120):
        answer = await asyncio.to_thread(_post, server.url + "/v1/search", {"query": "which version answers", "k": 1})
        if (found := str(answer["version"])) == wanted:
            break
        await asyncio.sleep(0.5)
    return found


async def _adding(server: serve_project.Server, seconds: float, failures: Counter[str]) -> int:
    """Adds a document every few seconds; how many were acknowledged. Counts what failed by its words."""
    end, added = time.perf_counter() + seconds, 0
    for number in range(10**6):
        if time.perf_counter() + ADDED_EACH > end:
            break
        await asyncio.sleep(ADDED_EACH)
        body = {"documents": [{"id": f"added-{number}", "title": "", "text": f"a text added as number {number}"}]}
        try:
            await asyncio.to_thread(_post, server.url + "/v1/documents", body)
        except OSError as error:
            failures[f"{type(error).__name__}: {error}"] += 1
        else:
            added += 1
    return added


def kills(root: Path, texts: list[str], _: tuple[str, str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Kills the server (SIGKILL) while documents are written, and counts acknowledged ones that are lost afterwards."""
    acknowledged: list[str] = []
    draw = random.Random(7)
    for turn in range(KILLS):
        with serve_project.served(root) as server:
            writer = threading.Thread(target=_write, args=(server, turn, acknowledged))
            writer.start()
            time.sleep(draw.uniform(0.3, 2.0))
            os.killpg(server.process.pid, signal.SIGKILL)
            writer.join()
    with serve_project.served(root) as server:
        lost = [one for one in acknowledged if not _is_there(server, one)]
    return {"kills": KILLS, "acknowledged": len(acknowledged), "lost": len(lost)}


def _write(server: serve_project.Server, turn: int, acknowledged: list[str]) -> None:
    for number in range(10**6):
        name = f"kill-{turn}-{number}"
        try:
            _post(server.url + "/v1/documents", {"documents": [{"id": name, "title": "", "text": f"text of {name}"}]})
        except OSError:
            return
        acknowledged.append(name)


def _is_there(server: serve_project.Server, doc_id: str) -> bool:
    found = _post(server.url + "/v1/search", {"query": f"text of {doc_id}", "k": 1, "filter": {"ids": [doc_id]}})
    return [hit["id"] for hit in found["hits"]] == [doc_id]


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


PARTS = {"throughput": throughput, "soak": soak, "kills": kills}

if __name__ == "__main__":
    main()
