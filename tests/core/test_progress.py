"""Progress in a log file, on a terminal, and for a program that reads it."""

import io
import sys

import pytest

from rabtriever.core import progress
from rabtriever.core.progress import Progress, ProgressLine, at_work, track


class Terminal(io.StringIO):
    """Takes what is printed, and says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that progress reads; nobody else reads its lines."""
    monkeypatch.delenv(progress.EVERY, raising=False)
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


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


def test_time_left_counts_from_the_resume(capsys, now):
    """Steps done before a resume make the rest look much faster than it is (by hand: 10 steps in 31 s, 40 left)."""
    line = Progress("teacher", 100, done=50)
    now[0] += 31
    line.advance(by=10)
    assert "60/100 | 31 s, about 124 s left" in capsys.readouterr().err


def test_a_log_has_a_line_every_half_minute(capsys, now):
    """A log of an hour has a line for each step, or none."""
    line = Progress("teacher", 100)
    for _ in range(100):
        now[0] += 1
        line.advance()
    assert [text.split()[1] for text in capsys.readouterr().err.splitlines()] == ["30/100", "60/100", "90/100"]


def test_short_work_is_silent_and_long_work_has_a_last_line(capsys, now):
    """A log is filled with lines about moments, or never says that a long stage ended."""
    assert list(track(["a", "b"], "quick")) == ["a", "b"]
    assert capsys.readouterr().err == ""
    for _ in track(range(3), "slow"):
        now[0] += 1
    assert "slow: 3/3 | 3 s, about 0 s left" in capsys.readouterr().err


def test_a_terminal_has_one_line(monkeypatch, now):
    """A terminal scrolls with progress, or what is printed next is glued to a half-written line."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "40")
    for _ in track(range(3), "slow"):
        now[0] += 1
    shown = terminal.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n") and shown.count("\r") == 3
    assert all(len(line) <= 39 for line in shown.replace("\n", "").replace("\x1b[K", "").split("\r"))


def test_a_reader_gets_a_line_that_it_can_take_apart(capsys, monkeypatch, now):
    """The program that shows the progress of a stage misses it, or misreads what it says."""
    monkeypatch.setenv(progress.EVERY, "1")
    line = Progress("mine@0: teacher", 20)
    now[0] += 2
    line.advance("loss 3.0", by=5)
    line.close()
    first, last = (ProgressLine.parse(text) for text in capsys.readouterr().err.splitlines())
    assert first == ProgressLine("mine@0: teacher", 5, 20, 2.0, 6.0, "loss 3.0")
    assert last is not None and last.note == "", "also of work that took no time"
    assert ProgressLine.parse("prepare: 490 documents; 4500 train queries") is None


def test_work_that_nobody_counts_is_told(capsys, monkeypatch):
    """Minutes of reading a large folder look like a program that hangs."""
    told = progress.threading.Event()
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.01)
    show = progress._show
    monkeypatch.setattr(progress, "_show", lambda *given: (show(*given), told.set()))
    with at_work("prepare: reading raw"):
        assert told.wait(30)
    assert capsys.readouterr().err.startswith("prepare: reading raw | 0 s\n")


@pytest.mark.parametrize("label", [None, "label"])
def test_track_gives_the_items(label):
    """Progress changes what it counts."""
    assert list(track(range(5), label)) == [0, 1, 2, 3, 4]
