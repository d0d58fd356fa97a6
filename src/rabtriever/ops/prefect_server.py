"""A Prefect API for one retraining (the configured one, or a temporary server of our own) and what is reported to it.

Prefect could start such a server by itself, but in our process group: Ctrl-C would end it before the flows have said
how they ended, and they would wait a minute and a half for it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import (
    PREFECT_API_REQUEST_TIMEOUT,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from rabtriever.ops.processes import child_group

LOG = Path(".cache/prefect-server.log")
_ANSWER_SECONDS = 5.0


@contextlib.contextmanager
def prefect_api() -> Iterator[None]:
    """Makes sure that there is an API for the block, with one temporary server where none is configured.

    Raises:
        ChildProcessError: the server did not come up.
        ConnectionError: the configured API does not answer.
    """
    if get_current_settings().api.url:
        check_api()
        yield
        return
    print("starting a temporary Prefect server", flush=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    LOG.parent.mkdir(parents=True, exist_ok=True)
    with open(LOG, "w") as log, child_group(command, stdout=log, stderr=subprocess.STDOUT) as server:
        url = f"http://127.0.0.1:{port}/api"
        _wait_until_up(server, url)
        # Nobody can read logs there once it is gone, and the last of them would be sent too late.
        with temporary_settings({PREFECT_API_URL: url, PREFECT_LOGGING_TO_API_ENABLED: False}):
            yield


def check_api() -> None:
    """Asks the configured API for a sign of life, once and with a short limit; any HTTP answer is one.

    Raises:
        ConnectionError: it does not answer.
    """
    url = get_current_settings().api.url
    impatient = {PREFECT_API_REQUEST_TIMEOUT: _ANSWER_SECONDS, PREFECT_CLIENT_MAX_RETRIES: 0}
    with temporary_settings(impatient), get_client(sync_client=True) as client:
        error = client.api_healthcheck()
    if error is not None and not isinstance(error, httpx.HTTPStatusError):
        raise unreachable(str(url), error) from error


def unreachable(url: str, error: Exception) -> ConnectionError:
    """The error that tells a user what to do about a Prefect API that does not answer.

    Args:
        url: address of the API.
        error: what its client raised.
    """
    what = str(error) or type(error).__name__
    return ConnectionError(
        f"Prefect's API at {url} does not answer ({what}); start it with `prefect server start`, correct "
        "PREFECT_API_URL, or unset it to run without a server"
    )


@contextlib.contextmanager
def api_errors() -> Iterator[None]:
    """Turns what Prefect's client raises when its server does not answer into an error that is told as others are.

    Raises:
        ConnectionError: the server does not answer.
    """
    try:
        yield
    except Exception as error:
        url, lost = str(get_current_settings().api.url or ""), _transport_error(error)
        if lost is None or not url or not _asked(lost).startswith(url):
            raise
        raise unreachable(url, lost) from error


def _transport_error(error: BaseException | None) -> httpx.TransportError | None:
    """The error of the connection that another one was raised for."""
    while error is not None and not isinstance(error, httpx.TransportError):
        error = error.__cause__ or error.__context__
    return error


def _asked(error: httpx.TransportError) -> str:
    try:
        return str(error.request.url)
    except RuntimeError:  # it was raised without a request
        return ""


def flow_run() -> dict[str, str | None] | None:
    """Id (`flow_run`) and address (`flow_run_url`) of the flow run around the caller, None outside of one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    run, ui = str(context.flow_run.id), get_current_settings().ui_url
    return {"flow_run": run, "flow_run_url": f"{ui.rstrip('/')}/runs/flow-run/{run}" if ui else None}


def log(line: str, level: int) -> None:
    """Adds a line to the log of the flow run around the caller, also where its other lines are kept from INFO.

    Args:
        line: what to log.
        level: of the standard library's `logging`.
    """
    logger = logging.getLogger("prefect.flow_runs.verdict")
    logger.setLevel(logging.INFO)
    logger.log(level, line)


def save_page(markdown: str, key: str, description: str) -> None:
    """Saves a page in Markdown as an artifact of the flow run around the caller.

    Args:
        markdown: the page.
        key: Prefect keeps the pages of one key as a history.
        description: in one line.
    """
    create_markdown_artifact(markdown, key=key, description=description)


def _wait_until_up(server: subprocess.Popen[bytes], url: str) -> None:
    limit = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    deadline = time.monotonic() + limit
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    state = f"is not up after {limit} s" if server.poll() is None else f"ended with status {server.returncode}"
    raise ChildProcessError(f"the temporary Prefect server {state}; its output is in {LOG}")
