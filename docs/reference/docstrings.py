"""Reads docstrings of Google's style: the text above the sections, and the entries of a section."""

from __future__ import annotations

import inspect
import re

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")
_HEAD = re.compile(rf"^({'|'.join(SECTIONS)}):$")


def parts(doc: str | None) -> dict[str, str]:
    """The sections of a docstring by name, dedented; what is above them is named ""."""
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in inspect.cleandoc(doc or "").splitlines():
        head = _HEAD.match(line)
        if head:
            name = head.group(1)
            found[name] = []
        else:
            found[name].append(line)
    return {name: inspect.cleandoc("\n".join(["", *lines])).strip() for name, lines in found.items()}


def entries(section: str) -> dict[str, str]:
    """The entries of a section "name: text" by name, each on one line; "a, b: text" is one of both."""
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in section.splitlines():
        if line and not line.startswith(" ") and ":" in line:
            head, text = line.split(":", 1)
            names = [name.strip() for name in head.split(",")]
            found |= {name: [text.strip()] for name in names}
        else:
            for name in names:
                found[name].append(line.strip())
    return {name: " ".join(part for part in lines if part) for name, lines in found.items()}
