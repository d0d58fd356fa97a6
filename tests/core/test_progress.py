"""Progress in a log file."""

import pytest

from rabtriever.core import progress
from rabtriever.core.progress import Progress, track


def test_lines_when_stderr_is_no_terminal(capsys, monkeypatch):
    """A log file is filled with control characters, stays silent for an hour, or standard output is littered."""
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    line = Progress("teacher", 4)
    for step in range(4):
        line.advance(f"loss {step}")
    out, err = capsys.readouterr()
    assert out == "" and "\r" not in err
    lines = err.splitlines()
    assert len(lines) == 4
    assert lines[1].startswith("teacher: 2/4 | 0 s, about 0 s left") and lines[1].endswith("| loss 1")


def test_time_left_counts_from_the_resume(capsys, monkeypatch):
    """Steps done before a resume make the rest look much faster than it is (by hand: 10 steps in 5 s, 40 left)."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    line = Progress("teacher", 100, done=50)
    now[0] += 11
    line.advance(by=10)
    assert "60/100 | 11 s, about 44 s left" in capsys.readouterr().err


def test_short_work_is_silent_and_long_work_has_a_last_line(capsys, monkeypatch):
    """A log is filled with lines about moments, or never says that a long stage ended."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    assert list(track(["a", "b"], "quick")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    for _ in track(range(3), "slow"):
        now[0] += 1
    assert "slow: 3/3 | 3 s, about 0 s left" in capsys.readouterr().err


@pytest.mark.parametrize("label", [None, "label"])
def test_track_gives_the_items(label):
    """Progress changes what it counts."""
    assert list(track(range(5), label)) == [0, 1, 2, 3, 4]
