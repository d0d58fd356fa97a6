"""What every stage shares: the folders it reads and writes, and the guard its main runs under.

Paths are relative to the repository root, from which every stage is run (`dvc repro` does so by itself).
Nothing here can change what a stage produces.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow, Task

from rabtriever.artifacts import ArtifactMismatchError

PARAMS = Path("params.yaml")
PREPARED = Path("data/prepared")
EMBEDDINGS = Path("data/embeddings")
CANDIDATES = Path("data/candidates")
BACKBONE = Path("models/backbone")
TEACHER = Path("models/teacher")
BIENCODER = Path("models/biencoder")
STUDENT = Path("models/student")
RETRIEVER = Path("models/retriever")
REPORTS = Path("reports")
CHECKPOINTS = Path(".cache/checkpoints")

# What a user can put right: told in one message. OSError covers missing files and a full disk.
EXPECTED_ERRORS = (ValueError, ArtifactMismatchError, OSError)

PARENT_FLOW_RUN = "RABTRIEVER_PARENT_FLOW_RUN"


def main(flow_fn: Flow[..., Any], **parameters: Any) -> None:
    """Run a stage as a program: tracked by Prefect when an API is configured, as a plain function otherwise.

    Errors a user can put right end the program with status 1 and one message on stderr (set RABTRIEVER_DEBUG=1 for the
    traceback); an interrupt ends it with 130, SIGTERM with 143, both after the stage's clean-up has run.

    Args:
        flow_fn: the stage's flow.
        parameters: keyword arguments of the flow.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if os.environ.get("PREFECT_API_URL"):
            _run_tracked(flow_fn, parameters)
        else:
            flow_fn.fn(**parameters)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except EXPECTED_ERRORS as error:
        if os.environ.get("RABTRIEVER_DEBUG"):
            raise
        print(f"{flow_fn.name}: {error}", file=sys.stderr)
        sys.exit(1)


def _run_tracked(flow_fn: Flow[..., Any], parameters: dict[str, Any]) -> None:
    """Call the flow; below an outer flow in another process, record it there as Prefect records its own subflows."""
    parent = os.environ.get(PARENT_FLOW_RUN)
    if not parent:
        flow_fn(**parameters)
        return
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    with get_client(sync_client=True) as client:
        marker = Task(fn=flow_fn.fn, name=flow_fn.name)
        key = f"{os.environ.get('DVC_STAGE', flow_fn.name)}-{os.getpid()}"
        task_run = client.create_task_run(marker, flow_run_id=UUID(parent), dynamic_key=key, name=key)
        flow_run = client.create_flow_run(flow_fn, parameters=parameters, parent_task_run_id=task_run.id)
    run_flow(flow_fn, flow_run=flow_run, parameters=parameters)
