"""The page of the public Python API, from signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

import docstrings

import rabtriever

_NAMES = ("Retriever", "Hit", "evaluate")
_INTRODUCTION = """\
# Python API

What `import rabtriever` offers. The import is light: torch is loaded when a retriever is.
Names that are not here may change in any release.
"""


def names() -> list[str]:
    """The public names, in the order that they are shown."""
    public = [name for name in getattr(rabtriever, "__all__", _NAMES) if not name.startswith("_")]
    return sorted(public, key=lambda name: (_NAMES.index(name) if name in _NAMES else len(_NAMES), name))


def text() -> str:
    """The page; names that the package does not have yet are left out."""
    found = [(name, _public(name)) for name in names()]
    return "\n".join(
        [_INTRODUCTION, *(line for name, thing in found if thing is not None for line in _entry(name, thing))]
    )


def _public(name: str) -> Any:
    found = getattr(rabtriever, name, None)
    if found is None and name in ("Retriever", "Hit"):
        from rabtriever.search import retriever

        found = getattr(retriever, name)
    return None if inspect.ismodule(found) else found


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield from (f"## `{name}`", "")
    if not inspect.isclass(thing):
        yield from _signatures(name, thing)
        yield from _described(thing)
        return
    yield from _described(thing)
    yield from _fields(thing)
    for member, value in _members(thing):
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


def _members(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties with a docstring, in the order of the code."""
    for name, value in vars(kind).items():
        function = getattr(value, "__func__", value)
        if not name.startswith("_") and (inspect.isfunction(function) or isinstance(value, property)) and value.__doc__:
            yield name, value


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
    yield from (_doctests(parts.pop("")), "")
    for name, section in parts.items():
        entries = docstrings.entries(section)
        yield from (f"**{name}**", "")
        if entries:
            yield from (f"- `{entry}`: {said}" for entry, said in entries.items())
        else:
            yield _doctests(section)
        yield ""


def _doctests(said: str) -> str:
    """A text with its doctests in fences."""
    return re.sub(r"(^>>> .*?)(?=\n\n|\Z)", r"```pycon\n\1\n```", said, flags=re.DOTALL | re.MULTILINE)
