"""The definition of a study, as a file of research/studies gives it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from rabtriever.core.profiles import load_profile
from rabtriever.core.settings import ParamsError, flat, nearest, read_settings

FOLDER, RESULTS, WORK = Path("research/studies"), Path("research/results"), Path(".cache/study")
Settings = dict[str, Any]
_CONFIG = ConfigDict(extra="forbid")


class Trial(NamedTuple):
    """One set with one seed."""

    set: str
    seed: int

    def __str__(self) -> str:
        return f"{self.set}-{self.seed}"


@dataclass(frozen=True, config=_CONFIG)
class SetSpec:
    """One data set of a study.

    Attributes:
        source: folder in BEIR layout, relative to the repository root.
        profile: of the backbone.
        seeds: one trial each.
        documents, train_queries, test_queries: most that are kept; 0 keeps all.
        settings: keys of params.yaml set anew.
    """

    source: str
    profile: str
    seeds: Annotated[list[int], Field(min_length=1)]
    documents: int = 0
    train_queries: int = 0
    test_queries: int = 0
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, config=_CONFIG)
class Study:
    """A study file in a repository.

    Attributes:
        name: of the file.
        root: the repository, or a folder with params.yaml, dvc.yaml, profiles/ and the sources.
        sets: by name.
        systems: by name, the settings that make it another system than the one it is measured as; mostly none.
        settings: keys of params.yaml set anew for all sets.
    """

    name: str
    root: Path
    sets: dict[str, SetSpec]
    systems: dict[str, Settings]
    settings: Settings = field(default_factory=dict)

    @property
    def results(self) -> Path:
        """Folder of the finished trials and the summary."""
        return self.root / RESULTS / self.name

    @property
    def work(self) -> Path:
        """Folder in which the trials are run."""
        return self.root / WORK / self.name

    def trials(self) -> list[Trial]:
        """All trials: every set's first seed, then every second one, so that a study that is stopped has all sets."""
        found = [(place, Trial(name, seed)) for name, one in self.sets.items() for place, seed in enumerate(one.seeds)]
        return [trial for _, trial in sorted(found, key=lambda item: item[0])]

    def trial_settings(self, trial: Trial) -> Settings:
        """The content of params.yaml in a trial: the defaults, then profile, study, set and seed."""
        spec, params = self.sets[trial.set], self.root / "params.yaml"
        layers: list[tuple[str, Mapping[str, Any]]] = [
            (f"profile {spec.profile}", load_profile(spec.profile, params, self.root / "profiles")),
            ("settings", self.settings),
            (f"sets.{trial.set}.settings", spec.settings),
            ("seed", {"random.seed": trial.seed, "prepare.source": spec.source}),
        ]
        found = read_settings(params)
        for where, overrides in layers:
            found = overlaid(found, overrides, f"study {self.name}: {where}")
        return found

    def conditions(self, trial: Trial) -> Settings:
        """All that a finished trial must have been run with to count."""
        spec = self.sets[trial.set]
        limits = {name: getattr(spec, name) for name in ("documents", "train_queries", "test_queries")}
        return {**self.trial_settings(trial), "limits": limits, "systems": self.systems}


def read_study(name: str, root: str | Path = ".") -> Study:
    """The study of research/studies/<name>.yaml, or of the file named.

    Raises:
        FileNotFoundError: no such study; the message lists those there are.
        ParamsError: an unknown key, a missing one, or a setting that params.yaml lacks.
    """
    root = Path(root)
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in (root / FOLDER).glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"there is no study {path}; expected a file, or one of {FOLDER}: {known}")
    content = read_settings(path)
    systems = {name: overrides or {} for name, overrides in (content.get("systems") or {}).items()}
    try:
        study = Study(**{**content, "systems": systems, "name": path.stem, "root": root})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ParamsError(f"{path}: {told}") from error
    for name, spec in study.sets.items():
        study.trial_settings(Trial(name, spec.seeds[0]))  # what is wrong is told now, and not after hours
    return study


def overlaid(settings: Settings, overrides: Mapping[str, Any], where: str) -> Settings:
    """A copy of settings by section with dotted keys set anew.

    >>> overlaid({"mine": {"depth": 12, "random": 6}}, {"mine.depth": 0}, "here")
    {'mine': {'depth': 0, 'random': 6}}

    Raises:
        ParamsError: a key that the settings do not have; names the nearest.
    """
    found, known = copy.deepcopy(settings), flat(settings)
    for key, value in overrides.items():
        if key not in known:
            raise ParamsError(f"{where}: params.yaml has no key {key!r}{nearest(key, known)}")
        section, name = key.split(".", 1)
        found[section][name] = value
    return found
