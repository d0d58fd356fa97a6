"""The ways in which a drill disturbs a run, and what is looked at afterwards."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.drill_project import GATE, RETRAIN, Finished, champion, copy, environment, hashes, leftovers, strays

_SIZE = 64 * 2**20  # of the file system, ten times the project
_SECONDS = 3600.0  # of patience; a busy machine takes many minutes for a run
# in no message: a traceback, or the words of a library's database layer
_RAW = re.compile(r"Traceback|\[SQL|sqlalche\.me|sqlalchemy\.|sqlite3\.|\(Background on this error")


class Way(NamedTuple):
    """A way to disturb a run.

    Attributes:
        moments: when; the first of them that comes in the stage.
        disturb: given the project, the process that waits and the one of the retraining; undoes it at its end.
        dies: whether the retraining itself is killed, and so says nothing.
    """

    moments: tuple[str, ...]
    disturb: Callable[[Path, int, int], AbstractContextManager[None]]
    dies: bool = False


@contextlib.contextmanager
def _kill_group(root: Path, process: int, retraining: int) -> Iterator[None]:
    """Kills the stage and DVC above it."""
    os.killpg(os.getpgid(process), signal.SIGKILL)
    yield


@contextlib.contextmanager
def _kill_retraining(root: Path, process: int, retraining: int) -> Iterator[None]:
    """Kills the retraining alone; what it started has to end by itself."""
    os.kill(retraining, signal.SIGKILL)
    yield


@contextlib.contextmanager
def _fill_disk(root: Path, process: int, retraining: int) -> Iterator[None]:
    """Takes the last byte of the file system."""
    filler = root.parent / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**10, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"0" * size)
    yield
    filler.unlink()


@contextlib.contextmanager
def _forbid_writing(root: Path, process: int, retraining: int) -> Iterator[None]:
    """Makes the store's database and folders immutable: modes alone would not stop root."""
    places = [root / "mlruns/mlflow.db", root / "mlruns", root / "mlruns/artifacts"]
    subprocess.run(["chattr", "+i", *map(str, places)], check=True)
    yield
    subprocess.run(["chattr", "-i", *map(str, places)], check=True)


@contextlib.contextmanager
def _lock_store(root: Path, process: int, retraining: int) -> Iterator[None]:
    """Keeps the store's database locked, as a program that hangs in a transaction does."""
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db", timeout=60, isolation_level=None)) as holder:
        holder.execute("begin exclusive")
        yield


WAYS = {
    "killed at its start": Way(("begun", "decided"), _kill_group),
    "killed while writing": Way(("writing",), _kill_group),
    "killed while registering": Way(("filing",), _kill_group),
    "retraining killed": Way(("begun", "decided"), _kill_retraining, dies=True),
    "disk full": Way(("begun", "decided"), _fill_disk),
    "store read-only": Way(("begun", "decided"), _forbid_writing),
    "store locked": Way(("begun", "decided"), _lock_store),
}


def drills(moments: dict[str, list[str]]) -> list[tuple[str, str]]:
    """All pairs of a stage and a way that can come about, given the moments of each stage."""
    return [
        (stage, name)
        for stage, seen in moments.items()
        for name, way in WAYS.items()
        if set(way.moments) & set(seen) and not (stage == GATE and name == "killed at its start")
    ]


def drill(of: Finished, stage: str, name: str) -> dict[str, Any]:
    """Disturbs a run and runs again: what the first said, how the second ended, and what was left."""
    way = WAYS[name]
    try:
        with copy(of, stage, _SIZE) as root:
            status, said = _disturbed(of, root, stage, way)
            same, left = _again(of, root)
    except (OSError, RuntimeError) as error:  # the drill itself failed
        return {"stage": stage, "way": name, "status": None, "message": str(error), "sound": False}
    message = _message(said, root)
    told = way.dies or (status == 1 and bool(message) and not _RAW.search(said))
    row = {"stage": stage, "way": name, "status": status, "message": message, "same": same, "left": left}
    return {**row, "sound": told and same and not left}


def _again(of: Finished, root: Path) -> tuple[bool, list[str]]:
    """Whether an undisturbed run after the disturbed one makes what it should, and what is left after it."""
    again = subprocess.run(RETRAIN, cwd=root, env=environment(root), capture_output=True, text=True)
    if again.returncode:
        return False, [f"the next run failed: {_message(again.stderr, root)}"]
    same = hashes(root) == of.hashes and champion(root) == of.hashes["models/retriever"]
    return same, leftovers(root, of)


def _disturbed(of: Finished, root: Path, stage: str, way: Way) -> tuple[int, str]:
    """Exit status and standard error of a run that is disturbed at the moment."""
    signs = root.parent / "signs"
    signs.mkdir()
    moment = next(one for one in way.moments if one in of.moments[stage])
    given = environment(root, signs, DRILL_MOMENT=moment, DRILL_STAGE="" if stage == GATE else stage)
    said = root.parent.parent / f"{root.parent.name}.stderr"  # not on the disk that becomes full
    with open(said, "w") as errors, open(os.devnull, "w") as nowhere:
        run = subprocess.Popen(RETRAIN, cwd=root, env=given, stdout=nowhere, stderr=errors)
    try:
        _wait(lambda: (signs / "reached").exists() or run.poll() is not None, f"{stage} to come to {moment!r}")
        if run.poll() is not None:
            raise RuntimeError(f"{stage} ended before {moment!r}: {said.read_text()}")
        (signs / "go.part").touch()
        with way.disturb(root, int((signs / "reached").read_text()), run.pid):
            (signs / "go.part").rename(signs / "go")  # a rename needs no room
            status = run.wait(_SECONDS)
            _wait(lambda: not strays(root), f"{[one.cmdline() for one in strays(root)]} to end", 1.0)
        return status, said.read_text()
    finally:
        run.kill()
        said.unlink()


def _wait(condition: Callable[[], Any], what: str, pause: float = 0.02) -> None:
    deadline = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(pause)


def _message(said: str, root: Path) -> str:
    """What a run said on standard error, without what differs from run to run."""
    lines = [line.replace(str(root), "PROJECT") for line in said.splitlines() if line.strip()]
    return "\n".join(lines)[-1000:]
