"""A Prefect API that is configured and does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.common import guard
from rabtriever.ops import prefect_server
from tests.closure import ROOT


@pytest.mark.parametrize("program", [("flows.retrain",), ("flows.prepare",), ("flows.retrain", "--serve", "0 3 * * 1")])
def test_p16_a_server_that_is_not_there_is_told_in_words(project: Path, program: tuple[str, ...]) -> None:
    """P16: prevents a traceback of Prefect's client where a server was stopped, or its address is wrong."""
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", *program], cwd=project, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "Prefect's API at http://127.0.0.1:9/api does not answer" in done.stderr
    assert "prefect server start" in done.stderr and "unset it" in done.stderr
    assert not (project / "data/prepared").exists()


def test_p16_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """P16: prevents minutes of silence before a hung server is reported."""
    monkeypatch.setattr(prefect_server, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/api"
        told = pytest.raises(ConnectionError, match="does not answer .*prefect server start")
        with temporary_settings({PREFECT_API_URL: url}), told:
            prefect_server.check_api()


@pytest.mark.parametrize("direct", [True, False])
def test_p16_a_server_that_goes_away_meanwhile(capsys: pytest.CaptureFixture[str], direct: bool) -> None:
    """P16: prevents a traceback where the server ends while a run is going on."""
    url = "http://127.0.0.1:9/api"
    lost = httpx.ConnectError("All connection attempts failed", request=httpx.Request("POST", f"{url}/flow_runs/"))
    with temporary_settings({PREFECT_API_URL: url}), pytest.raises(SystemExit) as found, guard("retrain"):
        if direct:
            raise lost
        raise RuntimeError("Failed to reach API") from lost
    assert found.value.code == 1 and f"retrain: Prefect's API at {url} does not answer" in capsys.readouterr().err


def test_p16_another_server_is_not_taken_for_prefects() -> None:
    """P16: prevents advice on Prefect where a model hub is out of reach."""
    lost = httpx.ConnectError("away", request=httpx.Request("GET", "https://hub.example/model"))
    here = temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"})
    with here, pytest.raises(httpx.ConnectError), prefect_server.api_errors():
        raise lost
