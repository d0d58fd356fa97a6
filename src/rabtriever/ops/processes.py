"""Processes that end with the one that started them, also when that one is killed, and the records they leave.

A killed process cleans up nothing itself. So a guard, a few lines of shell, waits beside each group of children, and a
stage watches the process above it. The next retraining closes the MLflow runs of processes that are gone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

from rabtriever.ops import registry, scratch, tracking

PROCESS_TAG = "rabtriever.process"
_PIPELINE_TAG = "rabtriever.pipeline"
_GRACE_SECONDS = (20.0, 5.0)  # after SIGINT, after SIGTERM
_CLOCK_SECONDS = 2  # the start of a process is told in whole seconds since boot, whose own time may be corrected

# Reads the group's number, then waits: a line says that all is over, the end of the pipe that our process is gone.
_GUARD = """
read -r group || exit 0
read -r over && exit 0
kill -s TERM -- "-$group" 2>/dev/null || exit 0
for second in 1 2 3 4; do
    sleep 1
    kill -s 0 -- "-$group" 2>/dev/null || exit 0
done
kill -s KILL -- "-$group" 2>/dev/null
"""


@contextlib.contextmanager
def child_group(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Starts a child in a process group of its own, which lives no longer than the block or this process.

    Args:
        command: program and arguments.
        options: what else `subprocess.Popen` takes.

    Yields:
        the child; if it still runs at the end of the block, it and everything below it are ended.
    """
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "rabtriever-guard"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        child = subprocess.Popen(command, start_new_session=True, **options)
        _tell(guard, str(child.pid))
        try:
            yield child
        finally:
            if child.poll() is None:
                stop_group(child)
    finally:
        _tell(guard, "over")
        with contextlib.suppress(OSError):
            guard.stdin.close()
        guard.wait()


def _tell(guard: subprocess.Popen[bytes], line: str) -> None:
    """Writes a line to a guard; one that somebody has ended needs none."""
    with contextlib.suppress(OSError):
        guard.stdin.write(f"{line}\n".encode())
        guard.stdin.flush()


def stop_group(child: subprocess.Popen[Any]) -> None:
    """Ends a child and everything below it: asks, asks firmly, kills."""
    for number, grace in zip((signal.SIGINT, signal.SIGTERM), _GRACE_SECONDS, strict=True):
        signal_group(child.pid, number)
        deadline = time.monotonic() + grace
        while time.monotonic() < deadline:
            if child.poll() is not None and not signal_group(child.pid, 0):
                return
            time.sleep(0.1)
    signal_group(child.pid, signal.SIGKILL)
    child.wait()


def signal_group(group: int, number: int) -> bool:
    """Sends a signal to a process group, 0 to ask only; returns whether there was anything left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's: its number was given anew
        return False
    return True


def end_with_parent(seconds: float = 1.0) -> None:
    """Ends this process when the one that started it is gone: by SIGTERM, and by SIGKILL if that does not help.

    Args:
        seconds: between two looks.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_GRACE_SECONDS[0])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def identity() -> str:
    """This process on this host, such as `host/4711/1760000000`: its number and when it started."""
    return f"{socket.gethostname()}/{os.getpid()}/{int(psutil.Process().create_time())}"


def sweep_runs() -> int:
    """Marks as KILLED the MLflow runs that say RUNNING although the process that wrote them is gone.

    Files that such a process has put together for a version, or filed for one that did not come about, go too.

    The caller holds `dvc_stages.exclusive()`. So no other retraining of this checkout runs, and every retraining in
    the checkout's own store is over. In a store that several share, only runs of this host are judged.

    Returns:
        how many runs were marked.
    """
    scratch.remove_left()
    local = _local_store()
    if local is not None and not local.is_file():
        return 0
    store = tracking.client()
    experiment = store.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    running = _runs(store, experiment, "attributes.status = 'RUNNING'")
    top = {run.info.run_id: run for run in running if "mlflow.parentRunId" not in run.data.tags}
    gone = {key for key, run in top.items() if _is_gone(run.data.tags, run.info.run_name, local is not None)}
    alive = top.keys() - gone
    below = {run.info.run_id for run in running if run.data.tags.get("mlflow.parentRunId", None) not in {None, *alive}}
    for run_id in [*below, *gone]:
        store.set_tag(run_id, "rabtriever.swept", "its process was gone")
        store.set_terminated(run_id, "KILLED")
    if below or gone:
        count = len(below) + len(gone)
        runs = "1 MLflow run" if count == 1 else f"{count} MLflow runs"
        print(f"retrain: marked {runs} of a killed process as KILLED", flush=True)
    if local is not None:
        _remove_unregistered(store, experiment)
    return len(below) + len(gone)


def _remove_unregistered(store: Any, experiment: str) -> None:
    """Removes the files of registrations that were killed, or failed, before there was a version of them."""
    registered = {version.run_id for version in registry.versions()}
    for status in ("FAILED", "KILLED"):
        for run in _runs(store, experiment, f"attributes.status = '{status}' and tags.stage = 'register'"):
            if run.info.run_id not in registered:
                shutil.rmtree(tracking.artifact_path(run.info.artifact_uri), ignore_errors=True)


def _local_store() -> Path | None:
    """The database of this checkout's own store; None where the store is another."""
    uri = tracking.tracking_uri()
    path = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    return path if path is not None and path.resolve().is_relative_to(Path.cwd().resolve()) else None


def _runs(store: Any, experiment: str, condition: str) -> list[Any]:
    """All runs that meet a condition."""
    found: list[Any] = []
    token = None
    while True:
        page = store.search_runs([experiment], condition, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _is_gone(tags: dict[str, str], name: str, local: bool) -> bool:
    """Whether the process that a run without a run above it belongs to has ended."""
    host, number, started = _split(tags.get(PROCESS_TAG) or tags.get(_PIPELINE_TAG) or "")
    if tags.get(PROCESS_TAG):
        return not _process_runs(number, started) if host == socket.gethostname() else local
    if tags.get(_PIPELINE_TAG):
        return host == socket.gethostname() and not _group_runs(number, started)
    return local and name == "retrain"


def _split(identity: str) -> tuple[str, int, int]:
    """Host, number and start of an identity; of one that nothing can be made of, a process that nobody has."""
    host, *rest = identity.split("/")
    return (host, int(rest[0]), int(rest[1])) if len(rest) == 2 and all(map(str.isdecimal, rest)) else ("", 0, 0)


def _process_runs(number: int, started: int) -> bool:
    try:
        process = psutil.Process(number)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started) <= _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return False


def _group_runs(group: int, started: int) -> bool:
    """Whether a process group has a member; a leader that started at another time is that of a later group."""
    if not group or not signal_group(group, 0):
        return False
    try:
        return not started or abs(psutil.Process(group).create_time() - started) <= _CLOCK_SECONDS
    except psutil.NoSuchProcess:  # the leader is gone, others of the group are not
        return True
