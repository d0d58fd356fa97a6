"""The page of the public Python API, from signatures and docstrings."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import docstrings

import rabtriever

_NAMES = ("Retriever", "Hit", "Explanation", "evaluate")
# of a class that inherits what is not meant for users as well
_MEMBERS = {"Retriever": ("load", "search", "explain", "rank", "documents", "bytes_per_document", "exact")}
_INTRODUCTION = """\
# Python API

What `import rabtriever` offers. The import is light: torch is loaded when a retriever is.
Names that are not here may change in any release.
"""


def text() -> str:
    """The page; names that the package does not have are left out."""
    found = [(name, thing) for name in _NAMES if (thing := _public(name)) is not None]
    return "\n".join([_INTRODUCTION, *(line for name, thing in found for line in _entry(name, thing))])


def _public(name: str) -> Any:
    """A name of the package, or of the module behind it."""
    with contextlib.suppress(ImportError):
        from rabtriever import api

        return getattr(rabtriever, name, getattr(api, name, None))
    return None


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield from (f"## `{name}`", "")
    if not inspect.isclass(thing):
        yield from _signatures(name, thing)
        yield from _described(thing)
        return
    yield from _described(thing)
    yield from _fields(thing)
    for member, value in _members(name, thing):
        if isinstance(value, property):
            yield from (f"### `{name}.{member}`", "")
            yield from _described(value)
        else:
            function = getattr(value, "__func__", value)
            yield from (f"### `{name}.{member}()`", "")
            yield from _signatures(f"{name}.{member}", function)
            yield from _described(function)


def _fields(kind: type) -> Iterator[str]:
    """The fields of a named tuple or dataclass with their types."""
    if hasattr(kind, "_fields") or dataclasses.is_dataclass(kind):
        types = {name: hint for name, hint in inspect.get_annotations(kind).items() if not name.startswith("_")}
        yield from ("| field | type |", "|---|---|")
        yield from (f"| `{name}` | `{_shown(hint)}` |" for name, hint in types.items())
        yield ""


def _shown(hint: Any) -> str:
    """A type as it is written in code, whether it was evaluated or not."""
    said = hint if isinstance(hint, str) else getattr(hint, "__forward_arg__", None) or inspect.formatannotation(hint)
    return said.replace("|", "\\|")


def _members(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with a docstring, in the order of the code where none is given."""
    for member in _MEMBERS.get(name, vars(kind)):
        value = inspect.getattr_static(kind, member, None)
        function = getattr(value, "__func__", value)
        shown = inspect.isfunction(function) or isinstance(value, property)
        if not member.startswith("_") and shown and value.__doc__:
            yield member, value


def _signatures(name: str, function: Any) -> Iterator[str]:
    yield "```text"
    for one in typing.get_overloads(function) or [function]:
        yield name + _signature(one)
    yield from ("```", "")


def _signature(function: Any) -> str:
    """The signature without `self` and without the quotes around annotations that are not evaluated."""
    found = inspect.signature(function)
    kept = [one for one in found.parameters.values() if one.name not in ("self", "cls")]
    return re.sub(r"(?<=[:>] )'([^']*)'", r"\1", str(found.replace(parameters=kept)))


def _described(thing: Any) -> Iterator[str]:
    parts = docstrings.parts(inspect.getdoc(thing))
    yield from (_markdown(parts.pop("")), "")
    for name, section in parts.items():
        entries = docstrings.entries(section)
        yield from (f"**{name}**", "")
        if entries:
            yield from (f"- `{entry}`: {_markdown(said)}" for entry, said in entries.items())
        else:
            yield _markdown(section)
        yield ""


def _markdown(said: str) -> str:
    """A docstring's text with its doctests in fences, and without what Markdown would take for HTML."""
    parts = re.split(r"((?:^>>> .*?)(?=\n\n|\Z)|`[^`]*`)", said, flags=re.DOTALL | re.MULTILINE)
    return "".join(_fenced(part) if part.startswith(">>> ") else _plain(part) for part in parts)


def _fenced(doctest: str) -> str:
    return "```pycon\n" + re.sub(r"  # doctest: \+\w+", "", doctest) + "\n```"


def _plain(part: str) -> str:
    return part if part.startswith("`") else part.replace("<", "\\<")
