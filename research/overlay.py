"""Settings laid over settings: some keys of params.yaml set anew, by name or computed from others."""

from __future__ import annotations

import ast
import copy
import difflib
import operator
from collections.abc import Mapping
from typing import Any

from rabtriever.core.settings import ParamsError, flat

Settings = dict[str, Any]
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv}


def overlaid(settings: Settings, overrides: Mapping[str, Any], where: str) -> Settings:
    """A copy of settings by section with dotted keys set anew.

    A value may be given as a text that starts with `=`: another key, or a sum, difference, product or floored quotient
    of numbers and keys, which stand for what `settings` had.

    >>> overlaid({"mine": {"depth": 12, "random": 6}}, {"mine.depth": 0, "mine.random": "= mine.depth + 6"}, "here")
    {'mine': {'depth': 0, 'random': 18}}

    Raises:
        ParamsError: a key that the settings do not have (names the nearest), or a formula that cannot be computed.
    """
    found, before = copy.deepcopy(settings), flat(settings)
    for key, value in overrides.items():
        if key not in before:
            near = difflib.get_close_matches(key, before, n=1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise ParamsError(f"{where}: params.yaml has no key {key!r}{hint}")
        *section, name = key.split(".", 1)
        target = found[section[0]] if section else found
        target[name] = computed(value, before, where) if is_formula(value) and not _is_text(before[key]) else value
    return found


def is_formula(value: Any) -> bool:
    """Whether a value is a text that starts with `=`."""
    return isinstance(value, str) and value.startswith("=")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not is_formula(value)


def computed(formula: str, values: Mapping[str, Any], where: str) -> Any:
    """What a formula gives for these values by dotted key: a number, or whatever the one key that it names holds.

    Raises:
        ParamsError: it is neither, or computes with something that is no number.
    """
    text = formula.removeprefix("=").strip()
    if text in values:
        return values[text]
    try:
        return _number(ast.parse(text, mode="eval").body, values)
    except (SyntaxError, ValueError, ZeroDivisionError) as error:
        message = f"{where}: {formula!r} is no sum or product of numbers and keys of params.yaml ({error})"
        raise ParamsError(message) from error


def _number(node: ast.expr, values: Mapping[str, Any]) -> int | float:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_number(node.left, values), _number(node.right, values))
    value = node.value if isinstance(node, ast.Constant) else values.get(ast.unparse(node))
    if type(value) not in (int, float):
        raise ValueError(f"{ast.unparse(node)} is {value!r}")
    return value


def differences(before: Settings, now: Settings) -> list[str]:
    """The settings in which two trials differ, as `key: before -> now`."""
    old, new = flat(before), flat(now)
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return [f"{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}" for key in keys]
