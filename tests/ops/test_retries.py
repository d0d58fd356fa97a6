"""A scheduled flow run whose process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy import wait_for

SERVED = """
import os, time
from prefect import flow
from rabtriever.ops.retries import retry_killed

@flow(name="killed", on_crashed=[retry_killed])
def killed():
    with open("processes", "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(60)

if __name__ == "__main__":
    killed.serve(name="scheduled", limit=1, print_starting_message=False, pause_on_shutdown=False)
"""


def attempts() -> list[int]:
    """Processes that have run the flow, in order."""
    found = Path("processes")
    return [int(line) for line in found.read_text().split()] if found.exists() else []


@pytest.mark.server
def test_a_killed_scheduled_run_is_run_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S07: prevents a week without a retraining because a process was killed, and one that is killed for ever."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    monkeypatch.chdir(tmp_path)
    Path("served.py").write_text(SERVED)
    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        environment = {**os.environ, "PREFECT_API_URL": str(client.api_url), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
        server = subprocess.Popen([sys.executable, "served.py"], env=environment, start_new_session=True)
        try:
            wait_for(client.read_deployments, 60)
            run = client.create_flow_run_from_deployment(client.read_deployments()[0].id)
            for count in (1, 2):
                wait_for(lambda count=count: len(attempts()) == count, 90)
                os.kill(attempts()[-1], signal.SIGKILL)
                wait_for(lambda: not client.read_flow_run(run.id).state.is_running(), 60)
            assert client.read_flow_run(run.id).state.is_crashed(), "killed a second time"
            assert client.read_flow_run(run.id).run_count == 2
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
