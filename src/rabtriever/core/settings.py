"""Strict settings: one section of params.yaml into the frozen dataclass that a stage declares beside its code.

Owns parsing, checking and the rewriting of one value in place. Holds no stage's fields: adding a setting to one stage
must not make the others stale. YAML is read as DVC reads it (version 1.2): `1e-4` is a number, `yes` and `off` are
words.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from rabtriever.core.artifacts import atomic_write

T = TypeVar("T")
_BOUNDS = {
    "ge": (lambda value, bound: value >= bound, "at least"),
    "gt": (lambda value, bound: value > bound, "more than"),
    "le": (lambda value, bound: value <= bound, "at most"),
    "lt": (lambda value, bound: value < bound, "less than"),
}


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
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ParamsError(f"{path}: unknown key {section}.{key}{nearest(key, fields)}; correct or remove it")
    hints = get_type_hints(cls)
    checked = {}
    for name, field in fields.items():
        where = f"{path}: {section}.{name}"
        if name not in values:
            raise ParamsError(f"{where} is missing; add it ({_describe(hints[name], field.metadata)})")
        checked[name] = checked_value(values[name], hints[name], where, field.metadata)
    return cls(**checked)


def load_sections(cls: type[T], path: str | Path = "params.yaml") -> T:
    """Several sections at once.

    Args:
        cls: A NamedTuple whose fields are named as the sections, each with its dataclass as type.
        path: The YAML file.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: As of `load_params`.
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


def save_param(path: str | Path, key: str, value: str | int | float | bool | None) -> None:
    """Rewrites one value of a YAML file in place, atomically; comments and everything else stay as they are.

    Args:
        path: The YAML file.
        key: Section and name with a dot between, such as "prepare.source".
        value: The new value, finite if a number.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If the key is not there, or holds a list or mapping.
    """
    read_settings(path)  # complains of a broken file
    text = Path(path).read_bytes().decode("utf-8")
    node = yaml.compose(text, Loader=_Loader)
    for depth, part in enumerate(key.split("."), start=1):
        children = {name.value: child for name, child in node.value} if isinstance(node, yaml.MappingNode) else {}
        if part not in children:
            found = ".".join(key.split(".")[:depth])
            raise ParamsError(f"{path}: no key {found}{nearest(part, children)}; add it, or correct the name")
        node = children[part]
    if not isinstance(node, yaml.ScalarNode):
        raise ParamsError(f"{path}: {key} is a list or mapping, only a single value can be rewritten")
    start, end = node.start_mark.index, node.end_mark.index
    gap = " " if text[start - 1 : start] == ":" else ""  # an empty value starts right behind its key's colon
    with atomic_write(path, "wb") as handle:
        handle.write((text[:start] + gap + _scalar(value) + text[end:]).encode("utf-8"))


def _scalar(value: str | int | float | bool | None) -> str:
    """YAML of one value: bare words where they read back as they are, else JSON, which is YAML too."""
    bare = isinstance(value, str) and re.fullmatch(r"[\w./~][\w./~+-]*", value)
    if bare and all(yaml.load(value, Loader=loader) == value for loader in (_Loader, yaml.SafeLoader)):
        return str(value)
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the plain scalars of YAML 1.2, and repeated keys refused."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for name in (name for name, _ in node.value if isinstance(name, yaml.ScalarNode)):
            if name.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"repeated key {name.value!r}", name.start_mark)
            seen.add(name.value)
        return super().construct_mapping(node, deep)


_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", _FLOAT, "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


def read_settings(path: str | Path) -> dict[str, Any]:
    """All settings of a YAML file by section.

    Raises:
        FileNotFoundError: If there is no such file.
        ParamsError: If it is no valid YAML, or no mapping.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no file {path}; expected the settings, one section per stage; run in the repository root"
        )
    try:
        content = yaml.load(Path(path).read_bytes().decode("utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: found {type(content).__name__}, expected one section per stage")
    return content


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by section as one level of dotted keys; what is no section keeps its name."""
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


def checked_value(
    value: Any, hint: Any, where: str, bounds: Mapping[str, Any] = MappingProxyType({}), expected: str | None = None
) -> Any:
    """`value` as the type that `hint` asks for.

    Args:
        value: as it was read.
        hint: one of those that `load_params` knows.
        where: file and key.
        bounds: of `bounded`.
        expected: describes the whole of which `hint` is a part.

    Raises:
        ParamsError: it is another type, or out of range.
    """
    expected = expected or _describe(hint, bounds)
    error = ParamsError(f"{where} is {value!r}, expected {expected}")
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in options:
            return None
        (inner,) = (option for option in options if option is not type(None))
        return checked_value(value, inner, where, bounds, expected)
    if origin is Literal:
        if not any(type(value) is type(option) and value == option for option in options):
            raise error
        return value
    if origin is list:
        if not isinstance(value, list):
            raise error
        return [checked_value(item, options[0], f"{where}[{place}]", bounds) for place, item in enumerate(value)]
    if hint is float and type(value) is int:
        value = float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise error
    if hint in (int, float) and not all(_BOUNDS[name][0](value, bound) for name, bound in bounds.items()):
        raise error
    return value


def _describe(hint: Any, bounds: Any) -> str:
    """The expectation in words."""
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _describe(option, bounds) for option in options)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in options)
    limits = " and ".join(f"{_BOUNDS[name][1]} {bound}" for name, bound in bounds.items())
    if origin is list:
        return f"a list, each item {_describe(options[0], bounds)}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
    return names.get(hint, str(hint)) + (f" {limits}" if limits else "")
