"""What every flow shares: a stage run under MLflow and Prefect, and the guard that a program runs under.

Nothing here can change what a stage produces.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

from prefect import Flow, Task

from rabtriever.core import code
from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.core.settings import load_sections, read_settings
from rabtriever.core.stages import Paths
from rabtriever.ops import full_disk
from rabtriever.ops.prefect_server import api_errors, check_api
from rabtriever.ops.processes import end_with_parent
from rabtriever.ops.terminal import lines
from rabtriever.ops.tracking import declared_stage, stage_run, store_errors

# what a user can put right; a full disk and a loss that is not a number are among them
EXPECTED_ERRORS = (ValueError, ArtifactMismatchError, OSError, FloatingPointError)
PARENT_FLOW_RUN = "RABTRIEVER_PARENT_FLOW_RUN"


def tracked(stage: ModuleType, name: str) -> Any:
    """Runs a stage with its settings, in an MLflow run of its own.

    Args:
        stage: a module with `Sections` and `run(sections, paths, tracker)`.
        name: of the stage.

    Returns:
        What `run` returns.
    """
    paths = Paths()
    sections = load_sections(stage.Sections, paths.params)
    with stage_run(name, sections._asdict()) as tracker:
        return stage.run(sections, paths, tracker)


def command(flow_fn: Flow[..., Any], *others: Flow[..., Any]) -> None:
    """Runs a flow as a program, whose --help is what the flow's docstring says.

    Args:
        flow_fn: the flow.
        others: flows that run in its place, each by an option of its name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m flows.{Path(sys.argv[0]).stem}", description=flow_fn.description)
    parser.set_defaults(flow=flow_fn)
    for other in others:
        parser.add_argument(f"--{other.name}", dest="flow", action="store_const", const=other, help=other.description)
    arguments = vars(parser.parse_args())
    main(arguments.pop("flow"), **arguments)


def main(flow_fn: Flow[..., Any], **parameters: Any) -> None:
    """Runs a flow, given its arguments: tracked by Prefect when an API is configured, as a plain function otherwise."""
    with guard(flow_fn.name):
        if os.environ.get("DVC_STAGE"):
            end_with_parent()
        before = _made_of(_filed)
        _check_unchanged(before)
        if os.environ.get("PREFECT_API_URL"):
            check_api()
            _run_tracked(flow_fn, parameters)
        else:
            flow_fn.fn(**parameters)
        _check_unchanged(before)


@contextlib.contextmanager
def guard(name: str) -> Iterator[None]:
    """Ends the program with one message for errors a user can put right, and lets clean-up run when it is stopped.

    Such errors give status 1 (with the traceback if RABTRIEVER_DEBUG=1), an interrupt 130, a signal 128 + its number.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup means it
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    try:
        with store_errors(), api_errors():
            yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        expected = isinstance(error, EXPECTED_ERRORS) or full_disk.is_of_full_disk(error)
        if not expected or os.environ.get("RABTRIEVER_DEBUG"):
            raise
        print(f"{name}: {lines(full_disk.told(error))}", file=sys.stderr, flush=True)
        sys.exit(1)


def _made_of(identify: Callable[[str], str | None]) -> dict[str, Any]:
    """Identities of the code and the settings that the stage which DVC runs is made of; empty outside DVC.

    Args:
        identify: gives the identity of code by its name in `code.identities`.
    """
    name = os.environ.get("DVC_STAGE")
    if not name:
        return {}
    params = Paths().params
    stage, settings = declared_stage(name), read_settings(params)
    files = [Path(dep) for dep in stage.get("deps", []) if dep.startswith(f"{code.FOLDER}/")]
    names = [file.relative_to(code.FOLDER).with_suffix("").as_posix() for file in files]
    sections = [entry for entry in stage.get("params", []) if isinstance(entry, str)]
    return {
        **{f"the code of {part}": identify(part) for part in names},
        **{f"{section} in {params}": settings.get(section) for section in sections},
    }


def _filed(name: str) -> str | None:
    """What DVC files the stage's outputs under: the identity of code as it was when the run began."""
    file = code.file_of(name)
    return file.read_text().strip() if file.is_file() else None


def _check_unchanged(before: dict[str, Any]) -> None:
    """Refuses to make, or to have made, something of other code and settings than DVC files it under."""
    if not before:
        return
    after = _made_of(code.identities().get)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise ArtifactMismatchError(
            f"{', '.join(changed)} changed since the run began, and what is made of the one would pass for made of the "
            "other; run again"
        )


def _run_tracked(flow_fn: Flow[..., Any], parameters: dict[str, Any]) -> None:
    """Runs the flow; below an outer flow of another process, as a subflow of that one."""
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
