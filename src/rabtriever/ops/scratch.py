"""Folders for what is put together here before it is handed on."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PLACE = Path(".cache/scratch")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder that is gone after the block; those that killed processes have left go before it.

    Raises:
        OSError: it cannot be made.
    """
    _PLACE.mkdir(parents=True, exist_ok=True)
    remove_left()
    with tempfile.TemporaryDirectory(dir=_PLACE, prefix=f"{os.getpid()}-") as folder:
        yield Path(folder)


def remove_left() -> None:
    """Removes the folders of processes that are gone."""
    for folder in _PLACE.glob("*-*"):
        process = folder.name.partition("-")[0]
        if process.isdecimal() and _is_gone(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_gone(process: int) -> bool:
    """Whether there is no process of this number; asked of the system, as who only searches has no psutil."""
    try:
        with contextlib.suppress(PermissionError):  # another user's
            os.kill(process, 0)
        return False
    except (ProcessLookupError, OverflowError):
        return True
