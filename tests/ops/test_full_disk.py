"""What libraries raise on a full disk, told in words."""

from __future__ import annotations

import shutil
import types
from pathlib import Path

import pytest

from flows.common import guard
from rabtriever.ops import full_disk

ROOM = "; make room, then run again"


class SafetensorError(Exception):
    """As safetensors raises it."""


def _wrapped() -> Exception:
    error = KeyError("loss")
    error.__context__ = OSError(28, "No space left on device", "models/x")
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "models/x"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        _wrapped(),
    ],
)
def test_a_full_disk_is_told(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    """S12. Prevents a traceback, or a number of an error without what to do, where a disk is full."""
    with pytest.raises(SystemExit, match="1"), guard("backbone"):
        raise error
    said = capsys.readouterr().err
    assert said.startswith("backbone: the disk is full (") and said.endswith(f"{ROOM}\n")


@pytest.mark.parametrize("error", [RuntimeError("PytorchStreamWriter failed"), OSError("100 requested and 0 written")])
def test_a_write_that_fails_without_room_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """S12. Prevents what torch and numpy say of a full disk, which does not name it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=4096))
    assert full_disk.told(error) == f"the disk is full ({error}){ROOM}"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=2**30))
    assert full_disk.told(error) == str(error)


def test_other_errors_stay_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S12. Prevents a mistake in the program that passes for something the user can put right."""
    with pytest.raises(ZeroDivisionError), guard("backbone"):
        raise ZeroDivisionError("division by zero")
    with pytest.raises(SystemExit), guard("backbone"):
        raise ValueError("prompt.order is 'x'")
    assert capsys.readouterr().err == "backbone: prompt.order is 'x'\n"
    store = "the store sqlite:///x failed: the disk is full" + ROOM
    assert full_disk.told(ConnectionError(store)) == store
