"""Stops a process of a drill at a named moment until the drill has disturbed it; Python imports it at each start.

DRILL_SIGNS names a folder. Without DRILL_MOMENT each moment that comes is noted there, in `seen`. With it, the process
writes its number to `reached` and waits for `go`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import Any

SIGNS = os.environ.get("DRILL_SIGNS")
STAGE = os.environ.get("DVC_STAGE", "")
_HALF = 8  # files of a version that MLflow has copied, of about twenty


def _moment(name: str) -> None:
    """Notes a moment; where the drill waits for this one, waits for the drill."""
    signs, wanted = Path(SIGNS), os.environ.get("DRILL_MOMENT")
    if wanted is None:
        with open(signs / "seen", "a") as seen:
            seen.write(f"{STAGE} {name}\n")
    elif wanted == name and os.environ["DRILL_STAGE"] == STAGE and not (signs / "reached").exists():
        (signs / "reached.part").write_text(str(os.getpid()))
        (signs / "reached.part").rename(signs / "reached")  # not half-written when the drill reads it
        while not (signs / "go").exists():
            time.sleep(0.01)


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """The moments of a stage's files: before the first of its own becomes visible, and while MLflow copies some."""
    if event == "os.rename" and f".tmp-{os.getpid()}-" in str(arguments[0]):
        _moment("writing")
    elif event == "shutil.copyfile" and "/mlruns/artifacts/" in str(arguments[1]):
        _copied.append(arguments[1])
        if len(_copied) == _HALF:
            _moment("filing")


@contextlib.contextmanager
def _begun(stage: str, params: Any) -> Any:
    with _stage_run(stage, params) as run:
        _moment("begun")
        yield run


def _promoting(version: Any) -> None:
    _moment("decided")
    _promote(version)


if SIGNS and STAGE:
    from rabtriever.ops import tracking

    _copied: list[str] = []
    _stage_run, tracking.stage_run = tracking.stage_run, _begun
    sys.addaudithook(_watch)
elif SIGNS and "retrain.bring_up_to_date" in " ".join(sys.orig_argv):
    from rabtriever.ops import registry

    _promote, registry.promote = registry.promote, _promoting
