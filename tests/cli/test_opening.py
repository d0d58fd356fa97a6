"""What a command says while its user waits."""

from __future__ import annotations

import gc
import sys
import time

import pytest

from rabtriever.cli import opening


def test_a_long_wait_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents seconds of silence."""
    with opening.told_when_slow("loading", seconds=0):
        deadline = time.monotonic() + 60
        while "loading" not in (shown := capsys.readouterr().err):
            assert time.monotonic() < deadline, "nothing was said"
            time.sleep(0.01)
    assert shown == "loading\n"


def test_a_short_wait_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents chatter beside an answer that came at once, and a timer that fires after it."""
    with opening.told_when_slow("loading", seconds=3600):
        pass
    assert capsys.readouterr().err == ""


def test_all_is_as_before_after_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a long search that never gives memory back, and libraries that stay hidden from what comes after."""
    monkeypatch.setattr(opening, "_NOT_FOR_SEARCHING", ("wave", "json"))
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with pytest.raises(KeyError), opening.fast_imports():
        assert not gc.isenabled() and "json" in sys.modules
        with pytest.raises(ModuleNotFoundError):
            import wave
        raise KeyError
    import wave

    assert gc.isenabled() and wave
