"""Where a language model came from and under which licence, as far as its files say; no network is asked."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import NamedTuple

from rabtriever.lm.model_source import GGUF, PACKAGE, is_hub_name, resolve_source

_FRONT = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license:\s*[\"']?([^\"'\n]+?)[\"']?\s*$", re.MULTILINE)
_LONGEST = 80  # characters of a licence's name; some packages have its text in the field


class Origin(NamedTuple):
    """What to say of a backbone's source.

    Attributes:
        source: its name, without a folder of this machine; empty where the model was built from scratch.
        revision: commit of a hub's model; else empty.
        licence: as its model card or its package says; empty where neither does.
    """

    source: str
    revision: str
    licence: str


def model_origin(source: str, revision: str) -> Origin:
    """The origin of `backbone.source`.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as of `resolve_source`.
    """
    if not source or is_hub_name(source):  # a hub's card stays there
        return Origin(source, revision, "")
    if source.startswith(PACKAGE):
        return Origin(source, "", _of_card(resolve_source(source)) or _of_package(source))
    return Origin(Path(source).name, "", _of_card(resolve_source(source)))


def _of_card(model: str) -> str:
    """The licence in the front matter of the README.md that lies in a model's folder, or beside its file."""
    card = (Path(model).parent if model.endswith(GGUF) else Path(model)) / "README.md"
    front = _FRONT.match(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    found = _LICENCE.search(front[1]) if front else None
    return found[1] if found else ""


def _of_package(source: str) -> str:
    package = source.removeprefix(PACKAGE).partition("/")[0]
    names = importlib.metadata.packages_distributions().get(package, [])
    for facts in (importlib.metadata.metadata(name) for name in names):
        for value in (facts.get("License-Expression"), facts.get("License")):
            if value and len(value) <= _LONGEST and "\n" not in value:
                return value
    return ""
