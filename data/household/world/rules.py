"""The hidden world: tables of needs, circumstances and document conditions, and the grade that follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
# What a pardon covers: annoyance, never danger and never what cannot be done.
PARDONABLE = frozenset({"loud", "scratch", "kneel", "bulky", "scent"})


# Conditions that no document states together.
CLASHES = {
    "quiet": {"loud"},
    "byhand": {"plug"},
    "easy": {"force"},
    "free": {"buy"},
    "quick": {"mins", "night"},
    "airless": {"fumes", "scent", "dust"},
    "traceless": {"marks", "scratch"},
    "harmless": {"poison", "small", "harsh"},
    "compact": {"bulky"},
    "selfrun": {"watch"},
}


@dataclass(frozen=True)
class Circumstance:
    """A fact about the asker's situation: how people let it slip, and what it cannot be combined with."""

    key: str
    surface: bool
    conflicts: frozenset[str]
    wordings: tuple[str, ...]
    decoys: tuple[str, ...]


@dataclass(frozen=True)
class Property:
    """A condition stated by documents; `effects` maps a circumstance to H (excluded), S (drawback), P (speaks for it)
    or R (pardons exclusions); the circumstance `*` stands for "unless a P applies"."""

    key: str
    effects: dict[str, str]
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Means:
    """One document before it is worded."""

    need: str
    title: str
    function: str
    properties: tuple[str, ...]
    second: bool


@dataclass
class Need:
    """Something to be done in a house, the situations that call for it, and the means that serve it."""

    key: str
    surfaces: frozenset[str]
    excluded: frozenset[str]
    situations: list[str] = field(default_factory=list)
    means: list[Means] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """All tables."""

    circumstances: dict[str, Circumstance]
    properties: dict[str, Property]
    needs: dict[str, Need]
    talk: dict[str, tuple[str, ...]]


def _blocks(name: str) -> list[tuple[list[str], list[str]]]:
    """Reads a table file into (header cells, body lines) pairs; `#` starts a comment line."""
    blocks: list[tuple[list[str], list[str]]] = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("@"):
            blocks.append(([cell.strip() for cell in line[1:].split("|")], []))
        elif line.strip() and not line.startswith("#"):
            blocks[-1][1].append(line.strip())
    return blocks


def _marked(lines: list[str], mark: str) -> tuple[str, ...]:
    return tuple(line[1:].strip() for line in lines if line.startswith(mark))


def _read_needs(names: list[str]) -> dict[str, Need]:
    needs: dict[str, Need] = {}
    for name in names:
        for header, lines in _blocks(name):
            words = header[1].split() if len(header) > 1 else []
            need = Need(
                key=header[0],
                surfaces=frozenset(word for word in words if not word.startswith("-")),
                excluded=frozenset(word[1:] for word in words if word.startswith("-")),
                situations=list(_marked(lines, "-")),
            )
            for row in _marked(lines, "+"):
                title, function, conditions = (cell.strip() for cell in row.split("|"))
                second = title.startswith("~")
                need.means.append(Means(need.key, title.lstrip("~"), function, tuple(conditions.split()), second))
            needs[need.key] = need
    return needs


def load_world() -> World:
    """Reads every table beside this file.

    Raises:
        ValueError: A table names a circumstance or a property that no other table defines, or a means contradicts
            itself.
    """
    circumstances = {}
    for (key, kind, conflicts), lines in _blocks("circumstances.txt"):
        circumstances[key] = Circumstance(
            key, kind == "surface", frozenset(conflicts.split()), _marked(lines, "-"), _marked(lines, "!")
        )
    properties = {}
    for (key, effects), lines in _blocks("properties.txt"):
        pairs = dict(pair.split(":") for pair in effects.split() if pair != ":")
        properties[key] = Property(key, pairs, _marked(lines, "-"))
        unknown = set(pairs) - set(circumstances) - {"*"}
        if unknown:
            raise ValueError(f"properties.txt: @{key} names unknown circumstances {sorted(unknown)}")
    needs = _read_needs(sorted(path.name for path in FOLDER.glob("needs_*.txt")))
    for need in needs.values():
        unknown = (need.surfaces | need.excluded) - set(circumstances)
        unknown |= {name for means in need.means for name in means.properties} - set(properties)
        if unknown:
            raise ValueError(f"need @{need.key} names unknown circumstances or properties {sorted(unknown)}")
        for means in need.means:
            clash = [key for key in means.properties if CLASHES.get(key, set()) & set(means.properties)]
            if clash:
                raise ValueError(f"need @{need.key}: {means.title!r} is {clash[0]} and contradicts itself")
    talk = {header[0]: _marked(lines, "-") for header, lines in _blocks("talk.txt")}
    return World(circumstances, properties, needs, talk)


def grade(means: Means, circumstances: frozenset[str], properties: dict[str, Property]) -> int:
    """Says how well a means serves its own need: 2 fits, 1 fits with a drawback, 0 does not fit.

    An exclusion beats everything, unless it is mere annoyance that the document pardons for a circumstance that
    holds. A second-best means fits fully only where something speaks for it.

    Args:
        means: The document.
        circumstances: What holds for the asker.
        properties: All conditions by name.
    """
    excluded = annoying = drawback = favoured = pardoned = False
    for name in means.properties:
        effects = properties[name].effects
        found = {effects[key] for key in circumstances if key in effects}
        favoured |= "P" in found
        pardoned |= "R" in found
        drawback |= "S" in found or ("*" in effects and "P" not in found)
        if "H" in found:
            if name in PARDONABLE:
                annoying = True
            else:
                excluded = True
    if excluded or (annoying and not pardoned):
        return 0
    if annoying or drawback or (means.second and not favoured):
        return 1
    return 2
