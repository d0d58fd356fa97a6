"""Files of a registered version on this machine: in place for a local store, else a copy kept in .cache."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from rabtriever.ops import tracking
from rabtriever.ops.answering import not_trusted
from rabtriever.ops.scratch import scratch_folder

LOST_ADVICE = "if it is the retriever in models/retriever, `python -m flows.register` makes a new version of it"
_CACHE = Path(".cache/registry")


def version_file(run_id: str, path: str, name: str, check: Callable[[Path], object] | None = None) -> Path:
    """A file or folder of a version's run.

    Args:
        run_id: the run that registered the version.
        path: where the file is among the run's artefacts.
        name: what messages call the version, such as "version 3".
        check: raises for a file or folder that is not to be kept, before a download enters the cache.

    Raises:
        FileNotFoundError: the run has no such file.
        ArtifactMismatchError: the id could name another folder than one of the cache.
    """
    if not re.fullmatch("[A-Za-z0-9_-]+", run_id or ""):
        raise not_trusted(name, f"its run is {run_id!r}, expected an id of letters and digits")
    client = tracking.client()
    root = tracking.artifact_path(client.get_run(run_id).info.artifact_uri)
    if root is not None:
        found = root / path
    else:
        found = _CACHE / run_id / path
        if not found.exists():
            found.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder() as scratch:  # a killed download leaves nothing half
                got = Path(client.download_artifacts(run_id, path, str(scratch)))
                if check is not None:
                    check(got)
                os.replace(got, found)
    return existing(found, name)


def existing(path: Path, name: str) -> Path:
    """The path.

    Raises:
        FileNotFoundError: there is nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{name} has lost its files: no {path}; {LOST_ADVICE}")
    return path
