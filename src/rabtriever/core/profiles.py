"""Profiles: what turns params.yaml from one backbone to another, and back.

A profile is a YAML file with the sections of params.yaml that holds only what differs from the profile `small`, the
shipped defaults. It is always laid over `small`, so that what it gives does not depend on the profile before it.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path

from rabtriever.core.settings import ParamsError, flat, nearest, read_settings, save_params

FOLDER = Path("profiles")
DEFAULTS = "small"

Value = str | int | float | bool | None

_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a mapping"}


def load_profile(name: str, params: str | Path, folder: str | Path = FOLDER) -> dict[str, Value]:
    """The values that a profile gives to params.yaml, those of `small` where it says nothing.

    Args:
        name: a profile in `folder` without its ending, or the path of a YAML file.
        params: the settings file that every key must be found in; it is only read.
        folder: the shipped profiles.

    Returns:
        Values by dotted key, such as "backbone.source".

    Raises:
        FileNotFoundError: no such profile; names those there are.
        ParamsError: a profile is not valid YAML, has a key that params.yaml lacks, or a value of another kind.
    """
    values: dict[str, Value] = {}
    for path in (Path(folder) / f"{DEFAULTS}.yaml", _find(name, Path(folder))):
        own = read_profile(path)
        _check(own, path, params)
        values |= own
    return values


def read_profile(path: str | Path) -> dict[str, Value]:
    """The values in one profile's file alone, by dotted key.

    Raises:
        FileNotFoundError: no such file.
        ParamsError: it is not valid YAML, or holds something else than sections of single values.
    """
    values = flat(read_settings(path))
    for key, value in values.items():
        if isinstance(value, (dict, list)):
            raise ParamsError(f"{path}: {key} is {_KINDS[type(value)]}, but a profile sets single values only")
    return values


def save_profile(values: Mapping[str, Value], params: str | Path) -> dict[str, tuple[Value, Value]]:
    """Writes values into params.yaml, all of them or, on any error, none; comments stay as they are.

    Args:
        values: values by dotted key, from `load_profile`.
        params: the settings file.

    Returns:
        The old and the new value of each key that changed.

    Raises:
        FileNotFoundError: there is no such file.
        ParamsError: a key is not there, or holds a list or mapping.
    """
    present = flat(read_settings(params))
    changes = {key: (present.get(key), new) for key, new in values.items() if key not in present or present[key] != new}
    save_params(params, {key: new for key, (_, new) in changes.items()})
    return changes


def _find(name: str, folder: Path) -> Path:
    """The file of a profile, which `name` gives by name or by path."""
    for path in (folder / f"{name}.yaml", Path(name).expanduser()):
        if path.is_file():
            return path
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise FileNotFoundError(
        f"no profile {name!r}{hint} There are {', '.join(known)} (in {folder}/); or give the path of a YAML file"
    )


def _check(values: Mapping[str, Value], path: Path, params: str | Path) -> None:
    """Makes sure that params.yaml has each key, with a value of the same kind.

    Raises:
        ParamsError: it lacks a key, or has a value of another kind there; names the nearest key.
    """
    sections = read_settings(params)
    present = flat(sections)
    for key, value in values.items():
        section, _, name = key.partition(".")
        if section not in sections:
            raise ParamsError(f"{path}: unknown section {section!r}{nearest(section, sections)}; correct or remove it")
        if key not in present:
            known = sections[section] if isinstance(sections[section], dict) else {}
            raise ParamsError(f"{path}: unknown key {key}{nearest(name, known)}; correct or remove it")
        there = present[key]
        kinds = _KINDS.get(type(value)), _KINDS.get(type(there))
        finite = not isinstance(value, float) or math.isfinite(value)
        if not finite or (None not in kinds and kinds[0] != kinds[1]):
            raise ParamsError(f"{path}: {key} is {value!r}, expected {kinds[1]}, as {params} has there ({there!r})")
