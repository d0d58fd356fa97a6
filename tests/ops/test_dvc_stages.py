"""Stages as child processes: their order, and what an interrupt leaves of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rabtriever.core.progress import ProgressLine
from rabtriever.ops import dvc_stages
from tests.toy import alive, build, set_params, wait_for

CHAIN = """
stages:
  last: {cmd: cp b c, deps: [b], outs: [c]}
  middle: {cmd: head -c 1 a > b, deps: [a], outs: [b]}
  first: {cmd: cp raw.txt a, deps: [raw.txt], outs: [a]}
  other: {cmd: cp side.txt d, deps: [side.txt], outs: [d]}
"""


def test_stale_stages_come_in_order(project: Path) -> None:
    """Prevents running a stage before the one it reads from, and skipping what follows from a change."""
    Path("dvc.yaml").write_text(CHAIN)
    Path("raw.txt").write_text("one")
    Path("side.txt").write_text("two")
    for stage in ("first", "middle", "last", "other"):
        assert dvc_stages.run_stage(stage, {})
    assert dvc_stages.stale_stages() == [] and not dvc_stages.is_stale("first")

    Path("raw.txt").write_text("other")
    assert dvc_stages.stale_stages() == ["first", "middle", "last"]
    assert dvc_stages.is_stale("first") and not dvc_stages.is_stale("last")
    assert dvc_stages.run_stage("first", {}) and dvc_stages.run_stage("middle", {})
    assert not dvc_stages.is_stale("last"), "it would make the same again"


SAYS = """
import os, sys
print("x: 1/2 | 3 s, about 4 s left | loss 5", file=sys.stderr)
print("of note")
print("of alarm", file=sys.stderr)
open("said.txt", "w").write(os.environ["RABTRIEVER_PROGRESS_SECONDS"])
"""


def test_progress_is_handed_over_and_the_rest_is_printed(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Prevents progress that scrolls by, a warning that is lost, and a skipped stage that passes for a fast one."""
    Path("say.py").write_text(SAYS)
    Path("dvc.yaml").write_text("stages: {say: {cmd: python say.py, deps: [say.py], outs: [said.txt]}}")
    lines: list[ProgressLine] = []
    assert dvc_stages.run_stage("say", {}, lines.append)
    assert lines == [ProgressLine("x", 1, 2, 3.0, 4.0, "loss 5")]
    assert tuple(capfd.readouterr()) == ("of note\n", "of alarm\n")
    assert not dvc_stages.run_stage("say", {}, lines.append) and len(lines) == 1


@pytest.mark.parametrize("group", [True, False])
def test_a_killed_stage_is_told(project: Path, group: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """S12. Prevents "its message is above" of a stage that the system has killed, and that could say nothing."""
    whom = "os.killpg(0, 9)" if group else "os.kill(os.getpid(), 9)"
    Path("say.py").write_text(f"import os\n{whom}")
    Path("dvc.yaml").write_text("stages: {say: {cmd: python say.py, deps: [say.py], outs: [said.txt]}}")
    with pytest.raises(dvc_stages.StageFailed, match="^stage 'say' was ended by SIGKILL, as .*memory.*; run again$"):
        dvc_stages.run_stage("say", {})
    assert "failed to run" not in capfd.readouterr().err
    Path("say.py").write_text("raise SystemExit(1)")
    with pytest.raises(dvc_stages.StageFailed, match=r"^stage 'say' failed \(exit status 255\)"):
        dvc_stages.run_stage("say", {})


def started(program: str) -> subprocess.Popen[bytes]:
    """A process of a program that runs the stage `index`, once that stage is at work."""
    set_params("index", wait=60)
    build(0.5)
    prepared = (  # a test run in the background of a shell inherits that SIGINT is ignored
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rabtriever.ops import dvc_stages\nfrom flows.common import guard\n"
    )
    child = subprocess.Popen([sys.executable, "-c", prepared + program])
    wait_for(lambda: Path("started").exists(), 30)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_stage_and_its_children(project: Path, number: int) -> None:
    """Prevents orphaned training processes that go on writing after the user has stopped the run."""
    child = started("with guard('retrain'), dvc_stages.exclusive():\n    dvc_stages.run_stage('index', {})")
    with pytest.raises(BlockingIOError, match=f"process {child.pid}"), dvc_stages.exclusive():
        pass  # a second retraining in the same folder is told of the first
    child.send_signal(number)
    assert child.wait(30) == 128 + number
    group = int(Path("started").read_text())
    wait_for(lambda: not alive(group), 10)


def test_a_second_interrupt_does_not_stop_the_clean_up(project: Path) -> None:
    """Prevents an impatient second Ctrl-C from leaving a stage running, or its last good outputs in the cache."""
    child = started(
        "import time\nfrom pathlib import Path\n"
        "def restore(stage):\n    Path('restoring').touch()\n    time.sleep(1)\n    Path('restored').touch()\n"
        "dvc_stages._restore = restore\n"
        "with guard('retrain'):\n    dvc_stages.run_stage('index', {})"
    )
    child.send_signal(signal.SIGINT)
    wait_for(lambda: Path("restoring").exists(), 30)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.send_signal(number)
    assert child.wait(30) == 130 and Path("restored").exists()
