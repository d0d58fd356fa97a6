"""Texts of data on a terminal."""

from __future__ import annotations

import json

import pytest

from rabtriever.ops.terminal import json_line, lines, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Um\nbrella\r\x1b[31m", "Um brella �[31m"),
        ("a\x1b]0;owned\x07b", "a�]0;owned�b"),
        ("c1 \x9b31m\x85next", "c1 �31m next"),
        ("two\u2028lines\u2029here", "two lines here"),
        ("\u202egnp.exe", "�gnp.exe"),
        ("half \ud800 pair", "half � pair"),
        ("naïve 日本 👩\u200d🔬", "naïve 日本 👩\u200d🔬"),
    ],
)
def test_nothing_in_a_text_steers_the_terminal(text: str, shown: str) -> None:
    """O46. Prevents a document from colouring, clearing or renaming the terminal, or from faking a line of the list."""
    assert one_line(text) == shown
    assert lines(f"{text.split()[0]}\nb\x1bc").split("\n")[-1] == "b�c"
    printed = json_line({text: text})
    assert json.loads(printed) == {text: text} and printed.isprintable() | ("\u200d" in printed)
