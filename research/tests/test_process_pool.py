"""Processes side by side: what they are given, what they print, and that none outlives its work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch

from research.process_pool import marked, process_pool
from tests.toy import ROOT, wait_for


def about_me(here: Path) -> tuple[int, int, str]:
    """Process, threads of torch, and what the libraries are told at their start."""
    (here / str(os.getpid())).touch()
    deadline = time.monotonic() + 120
    while len(list(here.iterdir())) < 2 and time.monotonic() < deadline:  # so that no process does the work of both
        time.sleep(0.1)
    return os.getpid(), torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def print_and_sleep(label: str) -> None:
    """Says so and would go on for an hour."""
    with marked(label):
        print("begun", flush=True)
        time.sleep(3600)


def test_one_worker_is_this_process():
    """A study of one worker pays for a second process, or an interrupt is kept until later."""
    with process_pool(1) as executor:
        assert executor.submit(os.getpid).result() == os.getpid()
        with pytest.raises(KeyboardInterrupt):
            executor.submit(interrupted)


def interrupted() -> None:
    """Ctrl-C in the middle of a piece of work."""
    raise KeyboardInterrupt


@pytest.mark.slow
def test_each_worker_has_its_share_of_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Every process takes all cores and they stall each other; or this one is left with fewer than it had."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    with process_pool(2) as executor:
        found: list[Future[tuple[int, int, str]]] = [executor.submit(about_me, tmp_path) for _ in range(2)]
        pids = {one.result()[0] for one in found}
        assert len(pids) == 2 and os.getpid() not in pids
        assert {one.result()[1:] for one in found} == {(2, "2")}
        assert executor.submit(about_me, tmp_path).result()[0] not in pids, "what a process took is given back"
    assert "OMP_NUM_THREADS" not in os.environ


@pytest.mark.slow
def test_no_worker_outlives_an_error(capfd: pytest.CaptureFixture[str]):
    """A killed study goes on in the background and holds its folders."""
    with pytest.raises(KeyboardInterrupt), process_pool(2) as executor:
        executor.submit(print_and_sleep, "work")
        while "work | begun" not in capfd.readouterr().out:
            time.sleep(0.1)
        assert multiprocessing.active_children()
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_no_worker_outlives_a_killed_parent(tmp_path: Path):
    """What is killed frees its lock, and the next run does the same work in the same folders as its orphans."""
    program = (
        "import sys\n"
        "from research.process_pool import process_pool\n"
        "from research.tests.test_process_pool import name_and_sleep\n"
        "if __name__ == '__main__':\n"
        "    with process_pool(2) as executor:\n"
        "        executor.submit(name_and_sleep, sys.argv[1]).result()\n"
    )
    (tmp_path / "parent.py").write_text(program)
    named = tmp_path / "worker"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", named], env=environment)
    wait_for(lambda: named.is_file() and named.read_text(), 120)
    parent.kill()
    parent.wait()
    worker = Path("/proc", named.read_text())
    wait_for(lambda: not worker.exists(), 30)
    assert parent.returncode == -signal.SIGKILL and not worker.exists()


def name_and_sleep(path: str) -> None:
    """Says who does this, and would go on for an hour."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(3600)


def test_lines_are_marked_whole(capsys: pytest.CaptureFixture[str]):
    """Half a line of one process ends up in another's, or a bar is drawn over them."""
    with marked("work"):
        print("one", "two", sep="\n")
        print("begun", end=" ")
        print("ended")
        print("late", file=sys.stderr)
        assert not sys.stderr.isatty()
    assert capsys.readouterr() == ("work | one\nwork | two\nwork | begun ended\n", "work | late\n")
    assert not hasattr(sys.stdout, "_label")
