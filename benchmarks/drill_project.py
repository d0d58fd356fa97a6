"""The toy project of the drills: built and run undisturbed once, then copied, with one stage made stale."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import psutil
from ruamel.yaml import YAML

from rabtriever.core.artifacts import read_manifest
from tests.e2e.test_pipeline import make_project

GATE = "gate"  # beside the stages: what decides on the retriever they made
MARK = "RABTRIEVER_DRILL"  # in the environment of all that a drill starts
_STEPS = 4
_HOOK = Path(__file__).resolve().parent / "drill_hook"
# what differs between equal runs, or is no file of ours
_IGNORED = (".git/", ".cache/prefect", ".cache/retrain.lock", ".cache/stage_seconds", ".dvc/tmp", ".dvc/cache/runs/")
_IGNORED += ("mlruns/.lock", "mlruns/artifacts/", "tmp/")
_CACHED = re.compile("/cache/files/|__pycache__")
_FORGET = """
from rabtriever.ops import registry, tracking
tracking.client().delete_registered_model(registry.MODEL)
"""


@dataclass(frozen=True)
class Finished:
    """A project after an undisturbed run.

    Attributes:
        root: its folder.
        stages: the stages in order, and the gate.
        moments: names of the moments that came in each stage.
        hashes: hash of each artefact, by its folder.
        files: all files but those that differ between equal runs.
    """

    root: Path
    stages: list[str]
    moments: dict[str, list[str]]
    hashes: dict[str, str]
    files: set[str]


def finished(root: Path) -> Finished:
    """The undisturbed project, built and run where it is not there yet."""
    signs = root.parent / f"{root.name}.signs"
    if not (signs / "done").exists():
        shutil.rmtree(root, ignore_errors=True)
        signs.mkdir(parents=True, exist_ok=True)
        root.mkdir(parents=True)
        make_project(root, _STEPS)
        (root / "tmp").mkdir()
        done = subprocess.run(RETRAIN, cwd=root, env=environment(root, signs))
        if done.returncode:
            sys.exit(f"drills: the undisturbed run ended with status {done.returncode}")
        (signs / "done").touch()
    moments: dict[str, list[str]] = {}
    for line in (signs / "seen").read_text().splitlines():
        stage, moment = line.split(maxsplit=1) if not line.startswith(" ") else (GATE, line.strip())
        moments.setdefault(stage, [])
        if moment not in moments[stage]:
            moments[stage].append(moment)
    return Finished(root, list(moments), moments, hashes(root), files(root))


RETRAIN = [
    sys.executable,
    "-c",
    "from flows import common, retrain\n"
    "with common.guard('retrain'):\n    retrain.bring_up_to_date()\n    retrain.print_report()",
]  # `make run` without a Prefect server, whose start takes longer than a stage of this project


def environment(root: Path, signs: Path | None = None, **more: str) -> dict[str, str]:
    """The environment of a project's commands; with `signs`, a stage notes its moments or waits at one of them."""
    given = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_", "DRILL_"))}
    given |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(root / "src"), *([str(_HOOK)] if signs else [])]),
        "TMPDIR": str(root / "tmp"),  # what a killed process leaves there is seen
        "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(root / ".cache/prefect"),
        MARK: str(root),
        **more,
    }
    if signs:
        given["DRILL_SIGNS"] = str(signs)
    return given


@contextlib.contextmanager
def copy(of: Finished, stage: str, size: int) -> Iterator[Path]:
    """A copy of the project, with this stage stale, in a file system of its own of so many bytes."""
    mount = Path(os.path.abspath(f"{of.root}.{stage}.{os.getpid()}.{time.monotonic_ns()}"))
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "drills", str(mount)], check=True)
    try:
        root = mount / "project"
        shutil.copytree(of.root, root, symlinks=True)
        _make_stale(root, stage)
        if stage == GATE or "filing" in of.moments[stage]:
            _empty_registry(root)
        yield root
    finally:
        for process in strays(root):
            process.kill()
        subprocess.run(["chattr", "-R", "-i", str(mount)], capture_output=True)
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
        mount.rmdir()


def _make_stale(root: Path, stage: str) -> None:
    """Takes from DVC what it knows of a stage's last run, and its outputs."""
    if stage == GATE:
        return
    yaml = YAML()  # of version 1.2, as DVC's: `yes` is a word
    lock = yaml.load(root / "dvc.lock")
    for out in lock["stages"].pop(stage)["outs"]:
        path = root / out["path"]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    yaml.dump(lock, root / "dvc.lock")
    shutil.rmtree(root / ".dvc/cache/runs", ignore_errors=True)


def _empty_registry(root: Path) -> None:
    """Makes registration and gate due again."""
    subprocess.run([sys.executable, "-c", _FORGET], cwd=root, env=environment(root), check=True)
    (root / "reports/promotion.json").unlink()


def hashes(root: Path) -> dict[str, str]:
    """Hash of each artefact of a project by its folder, after comparing its files with it."""
    found = [*root.glob("data/**/manifest.json"), *root.glob("models/**/manifest.json")]
    folders = {path.parent: json.loads(path.read_text())["kind"] for path in sorted(found)}
    return {str(path.relative_to(root)): read_manifest(path, kind).hash for path, kind in folders.items()}


def files(root: Path) -> set[str]:
    """The files of a project whose names do not differ between equal runs."""
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir())
    return {path for path in found if not path.startswith(_IGNORED) and not _CACHED.search(path)}


def champion(root: Path) -> str | None:
    """The hash of the retriever in service, after comparing its files with it; None without one."""
    query = (
        "select v.version, r.artifact_uri from registered_model_aliases a join model_versions v on v.name = a.name "
        "and v.version = a.version join runs r on r.run_uuid = v.run_id where a.alias = 'champion'"
    )
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as store:
        row = store.execute(query).fetchone()
    if row is None:
        return None
    folder = Path(url2pathname(urlparse(row[1]).path)) / "model/artifacts/retriever"
    return read_manifest(folder, "retriever").hash


def leftovers(root: Path, of: Finished) -> list[str]:
    """What a disturbed run has left: files and folders of ours, runs that say RUNNING, processes."""
    unknown = sorted(files(root) - of.files)
    hidden = [str(path.relative_to(root)) for path in root.rglob(".*") if ".tmp-" in path.name or path.suffix == ".old"]
    temporary = [f"tmp/{path.name}" for path in (root / "tmp").iterdir() if not path.name.startswith("torchinductor")]
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as store:
        rows = store.execute("select run_uuid, name, status from runs").fetchall()
        versions = {row[0] for row in store.execute("select run_id from model_versions")}
    running = [f"run {name} {status}" for _, name, status in rows if status == "RUNNING"]
    folders = {path.name: path / "artifacts/model" for path in (root / "mlruns/artifacts").iterdir()}
    known = {path.name for path in (of.root / "mlruns/artifacts").iterdir()}
    halves = [f"files of no version in run {run}" for run in folders.keys() - known - versions if folders[run].exists()]
    processes = [f"process {' '.join(one.cmdline())[:80]}" for one in strays(root)]
    return [*unknown, *hidden, *temporary, *running, *halves, *processes]


def strays(root: Path) -> list[psutil.Process]:
    """Processes that a drill's commands have started and left, servers and guards among them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
