"""Processes that outlive nobody, and the records of those that were killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from flows import retrain
from rabtriever.ops import dvc_stages, processes, registry, tracking
from tests.ops.test_tracking import register
from tests.toy import alive, build, set_params, wait_for

STUBBORN = """
import os, signal, sys, time
from rabtriever.ops.processes import child_group
program = "import os, signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; os.fork(); time.sleep(60)"
with child_group([sys.executable, "-c", program]) as child:
    time.sleep(1)
    open("group", "w").write(str(child.pid))
    time.sleep(60)
"""


def started(program: str, mark: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process of a program, and the group that it has written to a file."""
    child = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: Path(mark).exists() and Path(mark).read_text(), 60)
    return child, int(Path(mark).read_text())


def guards() -> set[int]:
    """Guards below this process that wait."""
    below = psutil.Process().children(recursive=True)
    return {process.pid for process in below if "rabtriever-guard" in words(process)}


def words(process: psutil.Process) -> list[str]:
    """The command line of a process; none of one that is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def status_of(run_id: str) -> str:
    """What MLflow says of a run."""
    return tracking.client().get_run(run_id).info.status


def test_children_of_a_killed_process_end(project: Path) -> None:
    """P13: prevents a server or a training that nobody ends, also where it ignores being asked."""
    before = guards()
    child, group = started(STUBBORN, "group")
    child.kill()
    child.wait()
    wait_for(lambda: not alive(group), 20)
    wait_for(lambda: not guards() - before, 5)


def test_children_end_with_the_block(project: Path) -> None:
    """P13: prevents a child, or its guard, that outlives an error in the block."""
    before = guards()
    with pytest.raises(ValueError, match="wrong"), processes.child_group(["sleep", "60"]) as child:
        assert alive(child.pid) and len(guards() - before) == 1
        raise ValueError("wrong")
    assert not alive(child.pid) and not guards() - before
    with pytest.raises(FileNotFoundError), processes.child_group(["no-such-program"]):
        pass
    assert not guards() - before


def test_a_stage_ends_with_the_process_above(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S07: prevents a stage that goes on writing after the `dvc repro` that ran it was killed."""
    stage = (
        "import os, time\nfrom prefect import flow\nfrom flows.common import main\n"
        "def work():\n    open('group', 'w').write(str(os.getpgrp()))\n    time.sleep(60)\n"
        "main(flow(name='prepare')(work))"
    )
    monkeypatch.setenv("DVC_STAGE", "prepare")
    above = (
        f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {stage!r}], start_new_session=True).wait()"
    )
    child, group = started(above, "group")
    assert alive(group)
    child.kill()
    child.wait()
    wait_for(lambda: not alive(group), 10)


def test_a_killed_retraining_leaves_no_process_and_no_running_record(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """S07: prevents a stage that lives on, and a run that says RUNNING for ever, after `kill -9` of a retraining."""
    set_params("index", wait=60)
    child, group = started("from flows import retrain\nretrain.retrain.fn()", "started")
    store = tracking.client()
    (run,) = store.search_runs([store.get_experiment_by_name(tracking.EXPERIMENT).experiment_id])
    child.kill()
    child.wait()
    wait_for(lambda: not alive(group), 20)
    assert status_of(run.info.run_id) == "RUNNING"

    set_params("index", wait=0)
    retrain.retrain.fn()
    assert status_of(run.info.run_id) == "KILLED"
    assert "marked 1 MLflow run of a killed process as KILLED" in capfd.readouterr().out
    assert processes.sweep_runs() == 0


def test_a_killed_dvc_takes_its_stage_along(project: Path) -> None:
    """S07: prevents a stage that writes its outputs while the retraining puts the old ones back."""
    set_params("index", wait=60)
    build(0.5)
    program = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rabtriever.ops import dvc_stages\nfrom flows.common import guard\n"
        "with guard('retrain'):\n    dvc_stages.run_stage('index', {})"
    )
    child, group = started(program, "started")
    os.kill(group, signal.SIGKILL)  # the leader alone, which is DVC
    assert child.wait(60) == 1
    assert not alive(group)


def gone_process() -> int:
    """The number of a process that has ended."""
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


@pytest.mark.parametrize("shared", [False, True])
def test_only_runs_of_processes_that_are_gone_are_closed(
    project: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """S07: prevents a sweep that closes the runs of a retraining at work, or of another host in a shared store."""
    if shared:
        monkeypatch.setattr(processes, "_local_store", lambda: None)
    here, gone, own = socket.gethostname(), gone_process(), processes.identity()
    reused = f"{here}/{os.getpid()}/{int(psutil.Process().create_time()) - 1000}"
    group = f"{here}/{os.getpgrp()}/{int(psutil.Process(os.getpgrp()).create_time())}"
    kinds = {
        "at work": {"rabtriever.process": own},
        "its stages": {"rabtriever.pipeline": group},
        "of another host": {"rabtriever.pipeline": "elsewhere/1/1"},
        "somebody's": {},
        "gone": {"rabtriever.process": f"{here}/{gone}/1"},
        "number given anew": {"rabtriever.process": reused},
        "gone stages": {"rabtriever.pipeline": f"{here}/{gone}/1"},
    }
    runs = {name: tracking._create_run(tracking.client(), name, tags) for name, tags in kinds.items()}
    for name in ("at work", "gone"):
        runs[f"below {name}"] = tracking._create_run(tracking.client(), name, {"mlflow.parentRunId": runs[name]})
    runs["retrain"] = tracking._create_run(tracking.client(), "retrain", {"rabtriever.process": "elsewhere/1/1"})
    expected = {"gone", "number given anew", "gone stages", "below gone"} | (set() if shared else {"retrain"})
    assert processes.sweep_runs() == len(expected)
    assert {name for name, run_id in runs.items() if status_of(run_id) == "KILLED"} == expected


@pytest.mark.parametrize("error", [OSError("No space left on device"), KeyboardInterrupt()])
def test_files_of_no_version_are_removed(project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """S12. Prevents copies of a retriever that no version names, one for each registration that was cut short."""
    version = register(0.5)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched, pytest.raises(type(error)):
        patched.setattr(registry, "_ensure_model", fail)
        register(0.6)
    left = Path(".cache/scratch", f"{gone_process()}-x")
    at_work = Path(".cache/scratch", f"{os.getppid()}-x")
    left.mkdir(parents=True)
    at_work.mkdir()
    assert len(list(Path("mlruns/artifacts").glob("*/artifacts/model"))) == 2
    assert processes.sweep_runs() == 0
    assert not left.exists() and at_work.exists()
    (kept,) = Path("mlruns/artifacts").glob("*/artifacts/model")
    assert kept.parents[1].name == version.run_id and registry.local_folder(version).is_dir()


def test_a_sweep_makes_no_store(project: Path) -> None:
    """S07: prevents an empty store beside a project whose store is missing."""
    Path("mlruns/mlflow.db").unlink()
    assert processes.sweep_runs() == 0 and not Path("mlruns/mlflow.db").exists()


@pytest.mark.server
def test_the_temporary_server_ends_with_a_killed_retraining(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P13, P15: prevents a Prefect server that lives on after `kill -9`, and one that is asked for through a proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    program = (
        "import flows, os, time\nfrom rabtriever.ops import prefect_server, processes\n"
        "start = processes._tell\n"
        "def noted(guard, line):\n    open('server', 'w').write(line)\n    start(guard, line)\n"
        "processes._tell = noted\n"
        "with prefect_server.prefect_api():\n"
        "    from prefect.client.orchestration import get_client\n"
        "    with get_client(sync_client=True) as client:\n        client.read_flow_runs()\n"
        "    os.rename('server', 'group')\n    time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", program])
    wait_for(lambda: Path("group").exists() or child.poll() is not None, 150)
    group = int(Path("group").read_text())
    child.kill()
    child.wait()
    wait_for(lambda: not alive(group), 20)
    assert not dvc_stages.LOCK.exists()
