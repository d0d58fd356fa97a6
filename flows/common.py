"""What every flow shares: a stage run under MLflow and Prefect, and the guard that a program runs under.

Nothing here can change what a stage produces.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from prefect import Flow, Task

from rabtriever.core.artifacts import ArtifactMismatchError, code_hash, content_hash
from rabtriever.core.settings import load_sections, read_settings
from rabtriever.core.stages import Paths
from rabtriever.ops.tracking import declared_stage, stage_run, store_errors

# what a user can put right, a full disk and a loss that is no number included
EXPECTED_ERRORS = (ValueError, ArtifactMismatchError, OSError, FloatingPointError)
PARENT_FLOW_RUN = "RABTRIEVER_PARENT_FLOW_RUN"


def tracked(stage: ModuleType, name: str, **arguments: Any) -> Any:
    """Runs a stage with its settings, in an MLflow run of its own.

    Args:
        stage: a module with `Sections` and `run(sections, paths, tracker)`.
        name: of the stage.
        arguments: what else its `run` takes, such as `round`.

    Returns:
        What `run` returns.
    """
    paths = Paths()
    sections = load_sections(stage.Sections, paths.params)
    label = f"{name}-{arguments['round']}" if "round" in arguments else name
    with stage_run(label, sections._asdict()) as tracker:
        return stage.run(sections, paths, tracker, **arguments)


def main(flow_fn: Flow[..., Any], **parameters: Any) -> None:
    """Runs a flow, given its arguments: tracked by Prefect when an API is configured, as a plain function otherwise."""
    with guard(flow_fn.name):
        before = _given()
        if os.environ.get("PREFECT_API_URL"):
            _run_tracked(flow_fn, parameters)
        else:
            flow_fn.fn(**parameters)
        _check_unchanged(before, _given())


def given_round() -> int:
    """The number behind `--round` on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--round", type=int, required=True, help="a round after 0 goes on from the one before")
    return parser.parse_args().round


@contextlib.contextmanager
def guard(name: str) -> Iterator[None]:
    """Ends the program with one message for errors a user can put right, and lets clean-up run when it is stopped.

    Such errors give status 1 (with the traceback if RABTRIEVER_DEBUG=1), an interrupt 130, a signal 128 + its number.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        with store_errors():
            yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except EXPECTED_ERRORS as error:
        if os.environ.get("RABTRIEVER_DEBUG"):
            raise
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _given() -> dict[str, Any]:
    """Code and settings that DVC takes the result of the stage it runs for made of; it reads them when the stage ends.

    Nothing outside DVC.
    """
    name = os.environ.get("DVC_STAGE")
    if not name:
        return {}
    params = Paths().params
    stage, settings = declared_stage(name), read_settings(params)
    code = [path for path in stage.get("deps", []) if path.startswith(("src/", "flows/"))]
    sections = [entry for entry in stage.get("params", []) if isinstance(entry, str)]
    return {
        **{path: _code_in(Path(path)) for path in code},
        **{f"{section} in {params}": settings.get(section) for section in sections},
    }


def _code_in(path: Path) -> str | None:
    """Identity of a file, or of the Python files of a folder; None where there is none."""
    if path.is_dir():
        return code_hash(path)
    return content_hash(path) if path.is_file() else None


def _check_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ArtifactMismatchError(
            f"{', '.join(changed)} changed while this ran, so what it made would pass for made of the new; run again"
        )


def _run_tracked(flow_fn: Flow[..., Any], parameters: dict[str, Any]) -> None:
    """Call the flow; below an outer flow in another process, record it there as Prefect records its own subflows."""
    parent = os.environ.get(PARENT_FLOW_RUN)
    if not parent:
        flow_fn(**parameters)
        return
    from prefect.client.orchestration import get_client
    from prefect.flow_engine import run_flow

    with get_client(sync_client=True) as client:
        stage = os.environ.get("DVC_STAGE", flow_fn.name)
        marker = client.create_task_run(Task(flow_fn.fn), UUID(parent), f"{stage}-{os.getpid()}", name=stage)
        flow_run = client.create_flow_run(flow_fn, stage, parameters, parent_task_run_id=marker.id)
    run_flow(flow_fn, flow_run=flow_run, parameters=parameters)
