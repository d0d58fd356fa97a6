"""A Prefect API for one retraining: the configured one, or a temporary server of our own.

Prefect could start such a server by itself, but in our process group: Ctrl-C would end it before the flows have said
how they ended, and they would wait a minute and a half for it.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_LOGGING_TO_API_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    get_current_settings,
    temporary_settings,
)

from rabtriever.ops.processes import child_group

LOG = Path(".cache/prefect-server.log")


@contextlib.contextmanager
def prefect_api() -> Iterator[None]:
    """Makes sure that there is an API for the block, with one temporary server where none is configured.

    Raises:
        ChildProcessError: the server did not come up.
    """
    if get_current_settings().api.url:
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


def _wait_until_up(server: subprocess.Popen[bytes], url: str) -> None:
    limit = PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
    deadline = time.monotonic() + limit
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    state = f"is not up after {limit} s" if server.poll() is None else f"ended with status {server.returncode}"
    raise ChildProcessError(f"the temporary Prefect server {state}; its output is in {LOG}")
