"""Texts of data as a terminal may show them: nothing in them can move its cursor, colour it or break a line."""

from __future__ import annotations

import json
import re
from typing import Any

_CONTROL = r"\x00-\x1f\x7f-\x9f"  # with them begin the sequences that a terminal obeys
_ORDER = r"\u202a-\u202e\u2066-\u2069"  # show the text after them in another order than it has
_BREAK = r"\u2028\u2029"
_SURROGATE = r"\ud800-\udfff"  # no stream can write them
_SPACE = re.compile(rf"[\t\n\v\f\r\x85{_BREAK}]+")
_UNSAFE = re.compile(f"[{_CONTROL}{_ORDER}{_SURROGATE}]")
_UNSAFE_IN_JSON = re.compile(f"[{_CONTROL}{_ORDER}{_BREAK}{_SURROGATE}]")


def one_line(text: object) -> str:
    r"""A text in one line: a space for what breaks lines, � for what a terminal would obey.

    >>> one_line("Um\nbrella\x1b[31m")
    'Um brella�[31m'
    """
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", _SPACE.sub(" ", str(text)))


def lines(text: object) -> str:
    """A message of several lines, each as `one_line` has it."""
    return "\n".join(one_line(line) for line in str(text).split("\n"))


def json_line(value: Any) -> str:
    r"""JSON in one line, with an escape for each character that `one_line` replaces: its value is unchanged.

    >>> json_line({"é": "\x9b1m"})
    '{"é": "\\u009b1m"}'
    """
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
