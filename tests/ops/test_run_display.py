"""What a person sees while stages are at work, in a log and on a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from rabtriever.core.progress import ProgressLine
from rabtriever.ops import run_display
from rabtriever.ops.run_display import RunDisplay


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the display reads."""
    now = [0.0]
    monkeypatch.setattr(run_display.time, "monotonic", lambda: now[0])
    return now


def test_a_log_tells_stages_and_what_is_left(tmp_path: Path, now: list[float], capsys: pytest.CaptureFixture[str]):
    """A log does not say which stage it is at, how many there are, or how long they will take."""
    with RunDisplay(["prepare", "register"], tmp_path / "seconds.json") as display:
        display.begin("prepare")
        now[0] += 20
        display.end(ran=True)
        display.begin("register")
        display.end(ran=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "retrain: 2 stages to run, about 13 s (typical of the embedded data set on two cores)",
        "",
        "[1/2] prepare",
        "[1/2] prepare: done in 20 s, about 5 s left",
        "",
        "[2/2] register",
        "[2/2] register: nothing to do",
    ]


def test_a_stage_at_work_has_its_phase(tmp_path: Path, now: list[float], capsys: pytest.CaptureFixture[str]):
    """A stage of two phases seems to end twice."""
    history = tmp_path / "seconds.json"
    with RunDisplay(["train_teacher", "register"], history) as display:
        display.begin("train_teacher")
        now[0] += 43
        for line in (
            ProgressLine("train_teacher: hard negatives", 8, 8, 2, 0),
            ProgressLine("train_teacher", 100, 280, 15, 27, "loss 4"),
            ProgressLine("train_teacher", 230, 280, 40, 9, "loss 3"),
        ):
            display.progress(line)
        head, doing, left = display._parts()
        assert head == "[1/2] train_teacher · 2 of 2"
        assert doing == "train_teacher: 230/280 | 40 s, about 9 s left | loss 3"
        assert left == "whole run: about 52 s left", "90 s and 5 s, less the 43 s"
        display.progress(ProgressLine("train_teacher: more", 1, 250, 1, 249))
        assert display._parts()[:2] == ("[1/2] train_teacher · 3 of 3", "more: 1/250 | 1 s, about 249 s left")
        display.end(ran=True)
    with RunDisplay(["train_teacher"], history) as display:
        display.begin("train_teacher")
        display.progress(ProgressLine("train_teacher", 1, 280, 1, 279))
        assert display._parts()[0] == "[1/1] train_teacher · 1 of 3", "as many as last time"


def test_a_log_has_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A stage that prints nothing for an hour looks like one that hangs."""
    told = run_display.threading.Event()
    monkeypatch.setattr(run_display, "LOG_SECONDS", 0.01)
    with RunDisplay(["register"], tmp_path / "seconds.json") as display:
        parts = display._parts
        monkeypatch.setattr(display, "_parts", lambda: (told.set(), parts())[1])
        display.begin("register")
        assert told.wait(30)
    assert "[1/1] register" in capsys.readouterr().out


def test_a_terminal_has_a_live_line_and_keeps_what_stages_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The live line overwrites a stage's message, remains after the end, or is filled into a pipe."""
    screen = io.StringIO()
    terminal = {"file": screen, "force_terminal": True, "width": 120, "_environ": {"TERM": "xterm"}}
    monkeypatch.setattr(run_display, "Console", lambda stderr=False: Console(**terminal))
    with RunDisplay(["register"], tmp_path / "seconds.json") as display:
        display.begin("register")
        display.progress(ProgressLine("register", 3, 9, 1, 2))
        print("register: version 1")
        display._live.refresh()
        display.end(ran=True)
    shown = screen.getvalue()
    assert "register: version 1\n" in shown and "3/9 | 1 s, about 2 s left" in shown and "[1/1] register" in shown
    assert shown.endswith("\x1b[?25h") or "\x1b[2K" in shown[-20:], "the line is taken away and the cursor given back"
