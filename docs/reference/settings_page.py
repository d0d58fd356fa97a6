"""The page of settings: every key of params.yaml with its type, range, default and meaning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import docstrings

from rabtriever.core.settings import read_settings
from rabtriever.ops.sections import SECTIONS
from rabtriever.training.trainer import StepModule

PARAMS = Path(__file__).resolve().parents[2] / "params.yaml"
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_NAMES = {int: "integer", float: "number", bool: "true or false", str: "text"}
# what no docstring says
_MEANINGS = {
    "random.seed": "Every draw of every stage follows from this number.",
    "small_model.vocabulary": "Tokens of the byte-level BPE tokenizer, at most; small corpora give fewer.",
    "small_model.width": "Width of the hidden states.",
    "small_model.layers": "Transformer layers.",
    "small_model.heads": "Attention heads; they share the width.",
    "small_model.feed_forward": "Width of the layers between the attention layers.",
    "small_model.context": "Tokens it can read at once; both segments must fit.",
}
_INTRODUCTION = """\
# Settings

Every number a human may change is a key of `params.yaml`.
A section belongs to one stage, or to one thing that several stages share.
Unknown keys, wrong types and values out of range are refused before the first stage runs.
`make run PROFILE=name` overwrites keys with those of a [profile](../guides/backbones.md).

Defaults are those of the shipped file. [Decisions](../decisions/001-document-first.md) say why they are what they are.
"""


def text() -> str:
    """The page."""
    defaults = read_settings(PARAMS)
    order = [name for name in defaults if name in SECTIONS] + [name for name in SECTIONS if name not in defaults]
    return "\n".join([_INTRODUCTION, *(section(name, defaults.get(name, {})) for name in order)])


def section(name: str, defaults: dict[str, Any]) -> str:
    """One section as heading and table."""
    kind = SECTIONS[name]
    known = _meanings(kind)
    lines = [f"## `{name}`", "", "| key | type | default | meaning |\n|---|---|---|---|"]
    for key, hint, bounds in fields(kind):
        default = f"`{_yaml(defaults[key])}`" if key in defaults else ""
        said = _MEANINGS.get(f"{name}.{key}") or _sentence(_resolved(known.get(key, ""), key))
        if not said:
            raise ValueError(
                f"{kind.__name__} says nothing of {key}; add it to the class's docstring, under Attributes"
            )
        cells = f"`{key}`", described(hint, bounds), default, said
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def fields(kind: type) -> list[tuple[str, Any, dict[str, Any]]]:
    """Name, type and bounds of each setting, of a dataclass or a pydantic model."""
    models = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None)
    if models:
        return [(name, info.annotation, _limits(info.metadata)) for name, info in models.items()]
    hints = get_type_hints(kind, include_extras=True)
    found = []
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        extras = getattr(hint, "__metadata__", ())
        bounds = {name: field.metadata[name] for name in _BOUNDS if name in field.metadata} | _limits(extras)
        found.append((field.name, get_args(hint)[0] if extras else hint, bounds))
    return found


def _limits(metadata: Any) -> dict[str, Any]:
    pairs = ((name, getattr(one, name, None)) for one in metadata for name in _BOUNDS)
    return {name: bound for name, bound in pairs if bound is not None}


def described(hint: Any, bounds: dict[str, Any]) -> str:
    """A type and its range in words."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{option}`" for option in get_args(hint))
    if get_origin(hint) is list:
        return f"list, each {described(get_args(hint)[0], bounds)}"
    if hint not in _NAMES:
        return " or ".join("null" if one is type(None) else described(one, bounds) for one in get_args(hint))
    limits = " and ".join(f"{word} {bounds[name]:,}" for name, word in _BOUNDS.items() if name in bounds)
    return f"{_NAMES[hint]}{', ' if limits else ''}{limits}"


def _meanings(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        found |= docstrings.entries(docstrings.parts(one.__dict__.get("__doc__")).get("Attributes", ""))
    models = getattr(kind, "model_fields", None) or getattr(kind, "__pydantic_fields__", None) or {}
    return found | {name: info.description for name, info in models.items() if info.description}


def _resolved(meaning: str, key: str) -> str:
    """Follows "see SomeClass" to what that class says of the key."""
    if not meaning.startswith("see "):
        return meaning
    known = {one.__name__: one for kind in SECTIONS.values() for one in kind.__mro__} | {"StepModule": StepModule}
    name = meaning.removeprefix("see ").rstrip(".")
    if name not in known:
        return meaning
    found = docstrings.parts(known[name].__doc__)
    return _resolved(docstrings.entries(found.get("Attributes", found.get("Args", ""))).get(key, ""), key)


def _sentence(meaning: str) -> str:
    return meaning and meaning[0].upper() + meaning[1:].rstrip(".") + "."


def _yaml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace("'", '"') if isinstance(value, str) else str(value)
