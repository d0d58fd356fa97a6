"""A worker that ends with the flow runs it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from flows.worker import end_flow_runs
from tests.closure import ROOT
from tests.toy import wait_for

# Each stands where Prefect's programs do: a flow run that cleans up, and a worker that a second signal would kill.
FLOW_RUN = """
    import pathlib, signal, sys, time
    def end(*_):
        time.sleep(0.5)
        pathlib.Path("cleaned").write_text("up")
        sys.exit(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "deaf" in sys.argv else end)
    pathlib.Path("running" + "".join(sys.argv[1:])).write_text("")
    time.sleep(60)
    pathlib.Path("next stage").write_text("")
"""
WORKER = """
    import pathlib, subprocess, sys, time
    runs = [subprocess.Popen([sys.executable, "flow_run.py", *sys.argv[2:]], start_new_session=True)]
    try:
        runs[0].wait()
        time.sleep(60)
    except KeyboardInterrupt:
        pathlib.Path("ended in order").write_text(str(pathlib.Path("cleaned").exists()))
"""
PROGRAM = """
    import sys
    from flows import worker
    from flows.common import guard
    worker.check_api, worker._COMMAND = lambda: None, [sys.executable, "worker.py"]
    with guard("worker"):
        sys.exit(worker.work("pool"))
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the three programs, as the working folder."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"flow_run": FLOW_RUN, "worker": WORKER, "program": PROGRAM}.items():
        Path(f"{name}.py").write_text(textwrap.dedent(text))
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("background", [True, False])
def test_s14_a_signal_ends_the_flow_run_and_then_the_worker(
    programs: Path, number: signal.Signals, background: bool
) -> None:
    """S14: prevents a worker that goes on to the next stage, or ends and leaves its flow run without clean-up."""
    if background and number == signal.SIGINT:
        pytest.skip("a shell's background job is told to ignore it")
    wanted = signal.SIG_IGN if background else signal.default_int_handler  # the tests may be a background job too
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with subprocess.Popen(
        [sys.executable, "program.py"], env=environment, preexec_fn=lambda: signal.signal(signal.SIGINT, wanted)
    ) as program:
        try:
            wait_for(Path("running").exists, 60)
            below = psutil.Process(program.pid).children(recursive=True)
            program.send_signal(number)
            program.wait(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 128 + number
    assert Path("cleaned").exists() and Path("ended in order").read_text() == "True"
    assert len(below) == 2 and not any(process.is_running() for process in below)
    assert not Path("next stage").exists()


def test_s14_a_flow_run_that_does_not_end_is_killed(programs: Path) -> None:
    """S14: prevents a stop that waits for ever; a neighbour of the flow run that cleans up."""
    with subprocess.Popen([sys.executable, "worker.py", "pool", "deaf"]) as worker:
        try:
            wait_for(Path("runningdeaf").exists, 60)
            [run] = psutil.Process(worker.pid).children()
            end_flow_runs(worker.pid, grace=0.3)
            assert not run.is_running() or run.status() == psutil.STATUS_ZOMBIE
            assert worker.poll() is None and not Path("cleaned").exists()
        finally:
            worker.kill()
