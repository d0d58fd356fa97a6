"""A Prefect worker that ends with what it runs: `python -m flows.worker` (docs/guides/schedule.md).

`prefect worker start` does not: started in the background it ignores SIGTERM and goes on to the next stage; in the
foreground it kills the flow run at once, which then can neither stop its stage nor report its end.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time

import psutil

from flows.common import guard
from rabtriever.ops.prefect_server import check_api

POOL = "retraining"
_GRACE_SECONDS = 60.0  # for a flow run to stop its stage, put the last outputs back, and report
_COMMAND = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool"]


def work(pool: str) -> int:
    """The exit status of a worker on a pool, after SIGTERM, SIGINT or SIGHUP has ended its flow runs and then it.

    Args:
        pool: name of the work pool.

    Raises:
        ConnectionError: Prefect's API does not answer.
    """
    check_api()
    # a session of its own: a terminal's Ctrl-C reaches this process alone, which passes it on in order
    worker = subprocess.Popen([*_COMMAND, pool], start_new_session=True, preexec_fn=_heed_interrupts)
    try:
        return worker.wait()
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        end_flow_runs(worker.pid)
        _end(psutil.Process(worker.pid))
        worker.wait()
        raise


def end_flow_runs(worker: int, grace: float = _GRACE_SECONDS) -> None:
    """Asks the flow runs of a worker to end, and kills those that have not after a while.

    Args:
        worker: its process id.
        grace: seconds that they have.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        print("worker: ending its flow runs", flush=True)
        deadline, asked = time.monotonic() + grace, set()
        while runs := [run for run in psutil.Process(worker).children() if run.status() != psutil.STATUS_ZOMBIE]:
            for run in runs:
                with contextlib.suppress(psutil.NoSuchProcess):
                    if time.monotonic() > deadline:
                        run.kill()
                    elif run.pid not in asked:
                        run.terminate()
            asked |= {run.pid for run in runs}
            time.sleep(0.1)


def _heed_interrupts() -> None:
    """A program that a shell starts in the background ignores interrupts, by which a worker ends itself."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except psutil.TimeoutExpired:
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.worker", description=__doc__.splitlines()[0])
    parser.add_argument("--pool", default=POOL, help=f"work pool, {POOL} by default")
    arguments = parser.parse_args()
    with guard("worker"):
        sys.exit(work(arguments.pool))
