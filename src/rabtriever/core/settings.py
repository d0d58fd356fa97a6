"""Strict settings: one section of params.yaml becomes the frozen dataclass that a stage declares beside its code.

This module reads the file, checks a section against its dataclass (with pydantic), and rewrites one value in place. It
holds no stage's fields: a setting that is added to one stage must not make the others stale. YAML is read as DVC reads
it (version 1.2, with ruamel.yaml): `1e-4` is a number, `yes` and `off` are words.

pydantic is imported when a section is read, not with this module: searching reads none.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from rabtriever.core.artifacts import atomic_write

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class ParamsError(ValueError):
    """A setting is unknown, missing, of the wrong type or out of range; the message names file, key and expectation."""


def bounded(
    *, ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None
) -> Any:
    """A dataclass field whose number (or each number of its list) must lie in a range.

    Args:
        ge: Smallest value allowed.
        gt: Value it must exceed.
        le: Largest value allowed.
        lt: Value it must stay under.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    return dataclasses.field(metadata={name: bound for name, bound in bounds.items() if bound is not None})


def load_params(cls: type[T], section: str, path: str | Path = "params.yaml") -> T:
    """The settings of one section.

    Args:
        cls: A dataclass without defaults; its fields are int, float, bool, str, Literal, list[int], list[float],
            list[str], or one of these or None.
        section: Top-level key of the file.
        path: The YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If the section is missing, or a key is unknown, missing, of the wrong type or out of range.
    """
    sections = read_settings(path)
    if section not in sections:
        raise ParamsError(f"{path}: no section {section!r}{nearest(section, sections)}; add it")
    values = sections[section]
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: {section} is {values!r}, expected a mapping of settings")
    hints = get_type_hints(cls)
    bounds = {field.name: field.metadata for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in bounds:
            raise ParamsError(f"{path}: unknown key {section}.{key}{nearest(key, bounds)}; correct or remove it")
    for name in bounds:
        if name not in values:
            expected = _describe(hints[name], bounds[name])
            raise ParamsError(f"{path}: {section}.{name} is missing; add it ({expected})")
    where = f"{path}: {section}"
    return cls(**{name: checked_value(values[name], hints[name], f"{where}.{name}", bounds[name]) for name in bounds})


def load_sections(cls: type[T], path: str | Path = "params.yaml") -> T:
    """Several sections at once.

    Args:
        cls: A NamedTuple whose fields are named as the sections, each with its dataclass as type.
        path: The YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If a section is missing, or a key is unknown, missing, of the wrong type or out of range.
    """
    return cls(**{section: load_params(kind, section, path) for section, kind in get_type_hints(cls).items()})


def check_sections(path: str | Path, known: Iterable[str]) -> None:
    """Makes sure that params.yaml has no section that nothing reads.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If a top-level key is not in `known`.
    """
    known = list(known)
    for section in read_settings(path):
        if section not in known:
            raise ParamsError(f"{path}: unknown section {section!r}{nearest(section, known)}; correct or remove it")


def save_params(path: str | Path, changes: Mapping[str, str | int | float | bool | None]) -> None:
    """Rewrites single values of a YAML file in place, all of them or none; comments and layout stay as they are.

    Args:
        path: The YAML file.
        changes: The new values, finite if numbers, by section and name with a dot between: "prepare.source".

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If a key is not there, or holds a list or mapping.
        ValueError: If a number is not finite.
    """
    read_settings(path)  # complains of a broken file
    text = Path(path).read_bytes().decode("utf-8")
    root = YAML(pure=True).compose(text)
    spans = {_span(root, text, key, path): _scalar(value) for key, value in changes.items()}
    for (start, end), new in sorted(spans.items(), reverse=True):  # from the end: earlier places stay
        gap = " " if text[start - 1 : start] == ":" else ""  # an empty value starts right behind its key's colon
        text = text[:start] + gap + new + text[end:]
    if changes:
        with atomic_write(path, "wb") as handle:
            handle.write(text.encode("utf-8"))


def _span(root: Node, text: str, key: str, path: str | Path) -> tuple[int, int]:
    """First character of a single value in a YAML text, and the one after its last."""
    node, behind = root, 0
    for depth, part in enumerate(key.split("."), start=1):
        children = {name.value: (name, child) for name, child in node.value} if isinstance(node, MappingNode) else {}
        if part not in children:
            found = ".".join(key.split(".")[:depth])
            raise ParamsError(f"{path}: no key {found}{nearest(part, children)}; add it, or correct the name")
        name, node = children[part]
        behind = text.index(":", name.end_mark.index) + 1
    if not isinstance(node, ScalarNode):
        raise ParamsError(f"{path}: {key} is a list or mapping, only a single value can be rewritten")
    start, end = node.start_mark.index, node.end_mark.index
    return (start, end) if end > start else (behind, behind)


def save_param(path: str | Path, key: str, value: str | int | float | bool | None) -> None:
    """Rewrites one value of a YAML file in place; arguments and errors are those of `save_params`."""
    save_params(path, {key: value})


def _scalar(value: str | int | float | bool | None) -> str:
    """YAML of one value: a bare word where it reads back as it is, else JSON, which is YAML too."""
    if isinstance(value, str) and re.fullmatch(r"[\w./~][\w./~+-]*", value) and _yaml().load(value) == value:
        return str(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _yaml() -> YAML:
    """A reader of plain values as DVC has it."""
    return YAML(typ="safe")


def read_settings(path: str | Path) -> dict[str, Any]:
    """All settings of a YAML file by section.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If it is not valid YAML, repeats a key, or is not a mapping.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no file {path}; expected the settings, one section per stage; run in the repository root"
        )
    try:
        content = _yaml().load(Path(path).read_bytes().decode("utf-8"))
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParamsError(f"{path}{line} is not valid YAML: {error.problem}; correct it") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {' '.join(str(error).split())}; correct it") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: found {type(content).__name__}, expected one section per stage")
    return content


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by section as one level of dotted keys; a top-level value that is not a section keeps its name."""
    found: dict[str, Any] = {}
    for section, values in settings.items():
        if isinstance(values, dict):
            found |= {f"{section}.{name}": value for name, value in values.items()}
        else:
            found[str(section)] = values
    return found


def nearest(name: Any, valid: Iterable[Any]) -> str:
    """Which name may have been meant, or all of them when none is near."""
    names = [str(one) for one in valid]
    near = difflib.get_close_matches(str(name), names, n=1)
    if near:
        return f", did you mean {near[0]!r}?"
    return f" (valid: {', '.join(sorted(names)) or 'none'})"


def checked_value(value: Any, hint: Any, where: str, bounds: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """`value` as the type that `hint` asks for: an integer may stand for a number, nothing else is converted.

    Args:
        value: as it was read.
        hint: one of the types that `load_params` knows.
        where: file and key, for the message.
        bounds: the limits that `bounded` was given, by name.

    Raises:
        ParamsError: If it is another type, not finite, or out of range.
    """
    from pydantic import ValidationError

    try:
        return _validator(hint, tuple(bounds.items())).validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        place = "".join(f"[{step}]" for step in fault["loc"] if isinstance(step, int))
        expected = _describe(get_args(hint)[0] if place else hint, bounds)
        raise ParamsError(f"{where}{place} is {fault['input']!r}, expected {expected}") from error


@functools.cache
def _validator(hint: Any, bounds: tuple[tuple[str, Any], ...]) -> TypeAdapter[Any]:
    """What checks the values of one setting; the bounds of a list are those of its items."""
    from pydantic import ConfigDict, Field, TypeAdapter

    if bounds and get_origin(hint) is list:
        hint = list[Annotated[get_args(hint)[0], Field(**dict(bounds))]]  # type: ignore[misc]
    elif bounds:
        hint = Annotated[hint, Field(**dict(bounds))]
    return TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))


def _describe(hint: Any, bounds: Mapping[str, Any]) -> str:
    """The expectation in words."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _describe(option, bounds) for option in options)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in options)
    limits = " and ".join(f"{_LIMITS[name]} {bound}" for name, bound in bounds.items())
    if origin is list:
        return f"a list, each item {_describe(options[0], bounds)}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    return names.get(hint, str(hint)) + (f" {limits}" if limits else "")
