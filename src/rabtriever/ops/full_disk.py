"""A full disk, told in words: each library that writes says it in its own way, some not at all."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
_WORDS = ("No space left on device", "Disk quota exceeded", "disk is full")
_ROOM = 2**16  # bytes; where less is left, a write that failed has failed for that


def is_of_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it was raised for, says that a disk is full, or the one here has no room left."""
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "errno", None) in _NUMBERS or any(words in str(found) for words in _WORDS):
            return True
        found = found.__cause__ or found.__context__
    # torch and numpy say no more than that a write has failed
    return isinstance(error, (OSError, RuntimeError)) and shutil.disk_usage(Path.cwd()).free < _ROOM


def told(error: BaseException) -> str:
    """The message of an error; of one of a full disk, with what to do.

    >>> told(OSError(28, "No space left on device", "models/x"))
    "the disk is full ([Errno 28] No space left on device: 'models/x'); make room, then run again"
    """
    said = str(error) or type(error).__name__
    if "make room" in said or not is_of_full_disk(error):
        return said
    return f"the disk is full ({said}); make room, then run again"
