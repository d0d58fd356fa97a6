"""The study's definition: which trials there are, and what each is run with.

A study is a YAML file of research/studies. A trial is one data set with one backbone and one seed; an ablation is the
same trial with some settings changed. Pure: nothing here trains, and nothing knows Prefect.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from rabtriever.core.profiles import load_profile
from rabtriever.core.settings import ParamsError, checked_value, flat, read_settings
from research.overlay import Settings, is_formula, overlaid
from research.specs import AblationPlan, BackboneSpec, ComplexityPlan, FurtherPlan, SetSpec

FORMAT = 2  # of stamps and results: raised by hand when a change of the code makes earlier trials incomparable
FOLDER = "research/studies"
RESULT, PER_QUERY, START, FAILURE = "trial.json", "per_query.json", "start.json", "failure.json"
_JOINED = {"settings", "backbones", "systems", "sections", "ablations"}
_NOT_READ = {"promote", "rounds"}  # sections that no trial reads: the gate's, and the list that only dvc.yaml reads
_OF_DPO = ("dpo_beta", "dpo_learning_rate")  # of train_teacher, and read only where it has dpo_steps

T = TypeVar("T")


class Trial(NamedTuple):
    """One unit of work of a study; `ablation` is empty for the trial that measures every system."""

    set: str
    seed: int
    ablation: str = ""

    @property
    def base(self) -> Trial:
        """The trial that an ablation starts from."""
        return self._replace(ablation="")

    @property
    def folder(self) -> str:
        """Its work folder below the study's."""
        name = f"{self.set}-{self.seed}"
        return f"{name}/ablations/{self.ablation}" if self.ablation else name

    def __str__(self) -> str:
        return f"{self.set}, seed {self.seed}" + (f", {self.ablation}" if self.ablation else "")


@dataclass(frozen=True)
class Study:
    """A study as its file defines it.

    Attributes:
        name: stem of the file.
        root: the repository, which sources are relative to.
        publish: whether its figures go to research/log.md, and its finished trials to `committed`.
        split: what is measured on, `test`, or `dev` to choose settings.
        workers: trials run side by side, each in a process with its share of the processor.
        settings: dotted keys for every trial, over the backbone's profile.
        backbones: by name.
        sets: by name.
        systems: rows of the tables in their order, each with the settings that make it what it is.
        sections: settings of systems that only the study trains, by section; a formula is computed from the trial's.
        readers: the systems that a section of `sections` is for, where the study says so.
        ablations: changed settings by name.
        ablate: which of them are run; None for none.
        further: which trials are run only when asked for.
        complexity: None to leave it out.
        defaults: params.yaml with `sections` added, what all of the above is laid over.
        profiles: dotted keys of each backbone's profile.
    """

    name: str
    root: Path
    publish: bool
    split: str
    workers: int
    settings: Settings
    backbones: dict[str, BackboneSpec]
    sets: dict[str, SetSpec]
    systems: dict[str, Settings]
    sections: Settings
    readers: dict[str, list[str]]
    ablations: dict[str, Settings]
    ablate: AblationPlan | None
    further: FurtherPlan
    complexity: ComplexityPlan | None
    defaults: Settings
    profiles: dict[str, Settings]

    @property
    def folder(self) -> Path:
        """Where its trials are worked on."""
        return self.root / ".cache/study" / self.name

    @property
    def committed(self) -> Path:
        """Where finished trials of a published study are kept for others, in version control."""
        return self.root / "research/results" / self.name

    def present(self) -> dict[str, SetSpec]:
        """The sets whose folder is there."""
        return {name: spec for name, spec in self.sets.items() if (self.root / spec.source).is_dir()}

    def trials(self) -> list[Trial]:
        """Every trial, those that others start from before them."""
        found = [Trial(name, seed) for name, spec in self.sets.items() for seed in spec.seeds]
        for name in self.sets:
            found += [Trial(name, seed, one) for one, seeds in self.ablations_of(name).items() for seed in seeds]
        return found

    def ablations_of(self, name: str) -> dict[str, list[int]]:
        """The ablations that are measured on a set, each with its seeds; none in a study without `ablate`."""
        if self.ablate is None:
            return {}
        spec = self.sets[name]
        planned = (self.ablate.names or list(self.ablations)) if name in self.ablate.sets else []
        own = [one for one in spec.ablate if one not in planned]
        return {one: spec.seeds if one in spec.ablate else self.ablate.seeds for one in [*planned, *own]}

    def is_further(self, trial: Trial) -> bool:
        """Whether a trial is run only when asked for."""
        plan = self.further
        if trial.set in plan.sets or trial.seed in plan.seeds.get(trial.set, []):
            return True
        return trial.ablation in plan.ablations.get(trial.set, [])

    def systems_of(self, name: str) -> dict[str, Settings]:
        """The systems that are measured on a set."""
        left_out = self.sets[name].leave_out
        return {system: overrides for system, overrides in self.systems.items() if system not in left_out}

    def idle(self, measured: Collection[str]) -> set[str]:
        """The sections that none of these systems reads."""
        return {section for section, systems in self.readers.items() if not set(systems) & set(measured)}

    def complexity_trial(self) -> Trial:
        """The trial whose models the online cost is measured with."""
        name = self.complexity.set
        return Trial(name, self.sets[name].seeds[0])

    def complexity_conditions(self) -> Settings:
        """As `conditions`, of the online cost, whichever systems the trial measures."""
        found = self.conditions(self.complexity_trial(), without=self.systems)
        return {name: value for name, value in found.items() if name != "measured"} | {
            "complexity": dataclasses.asdict(self.complexity)
        }

    def trial_settings(self, trial: Trial, system: str = "") -> Settings:
        """All settings of a trial by section: params.yaml, profile, study, backbone, set, seed, ablation, in order.

        Args:
            trial: one of the study's.
            system: one that is measured in it, whose own settings come before the ablation's; empty for the product.

        Raises:
            ParamsError: a key that params.yaml does not have.
        """
        spec = self.sets[trial.set]
        layers = [
            (f"profile {self.backbones[spec.backbone].profile}", self.profiles[spec.backbone]),
            ("settings", self.settings),
            (f"backbones.{spec.backbone}.settings", self.backbones[spec.backbone].settings),
            (f"sets.{trial.set}.settings", spec.settings),
            ("seed and source", {"random.seed": trial.seed, "prepare.source": spec.source}),
        ]
        if system:
            layers.append((f"systems.{system}", self.systems.get(system, {})))
        if trial.ablation:
            layers.append((f"ablations.{trial.ablation}", self.ablations[trial.ablation]))
        found = self.defaults
        for where, overrides in layers:
            found = overlaid(found, overrides, f"{self.name}: {where}")
        values = flat(found)
        formulas = {key: value for key, value in flat(self.sections).items() if is_formula(values[key])}
        return overlaid(found, formulas, f"{self.name}: sections")

    def conditions(self, trial: Trial, without: Collection[str] = ()) -> Settings:
        """All that a finished trial must have been run with to count: another value makes it unfinished.

        Settings of systems that it does not measure are not among them. Of an ablation's systems with settings of their
        own those in which they differ from the product are.

        Args:
            trial: one of the study's.
            without: systems of a base trial that are taken for left out.
        """
        spec = self.sets[trial.set]
        limits = {"documents": spec.documents, "train_queries": spec.train_queries, "split": self.split}
        measured = {name: own for name, own in self.systems_of(trial.set).items() if name not in without}
        if trial.ablation and self.ablate:
            measured = self.ablate.measured(trial.ablation)
        found, unread = self.trial_settings(trial), _NOT_READ | self.idle(measured)
        settings = {name: value for name, value in found.items() if name not in unread}
        apart = {}
        if varied := [name for name in measured if self.systems.get(name)] if trial.ablation else []:
            usual, own = flat(found), {name: flat(self.trial_settings(trial, name)) for name in varied}
            apart["systems"] = {
                name: {key: value for key, value in values.items() if value != usual[key]}
                for name, values in own.items()
            }
        return without_idle({"format": FORMAT, **settings, **limits, "measured": measured, **apart})


def without_idle(conditions: Settings) -> Settings:
    """Conditions without what decides on no ranking: the calibration's, and DPO's where no system runs any."""
    index = {key: one for key, one in conditions.get("index", {}).items() if key != "precision"}
    conditions = {**conditions, "index": index} if index else conditions
    parts = [conditions.get("measured"), conditions.get("systems")]
    own = [overrides for part in parts if isinstance(part, dict) for overrides in part.values()]
    teacher = conditions["train_teacher"]
    if teacher["dpo_steps"] or any("train_teacher.dpo_steps" in overrides for overrides in own):
        return conditions
    return {**conditions, "train_teacher": {key: one for key, one in teacher.items() if key not in _OF_DPO}}


def read_study(name: str, root: str | Path = ".") -> Study:
    """The study of research/studies/<name>.yaml, or of the file named.

    Raises:
        FileNotFoundError: no such study; the message lists those there are.
        ParamsError: an unknown key, a missing one, a name that is not defined, a setting that params.yaml lacks.
    """
    root = Path(root)
    path = Path(name) if name.endswith((".yaml", ".yml")) else root / FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in (root / FOLDER).glob("*.yaml"))) or "none"
        raise FileNotFoundError(f"no study {path}; expected a file, or one of {FOLDER}: {known}")
    content = _included(path)
    defaults = read_settings(root / "params.yaml")
    sections, readers = _sections(_mapping(content, "sections", path), defaults, path)
    backbones = _each(BackboneSpec, content, "backbones", path)
    study = Study(
        name=path.stem,
        root=root,
        publish=bool(content.pop("publish", False)),
        split=content.pop("split", "test"),
        workers=content.pop("workers", 1),
        settings=_mapping(content, "settings", path),
        backbones=backbones,
        sets=_each(SetSpec, content, "sets", path),
        systems={system: overrides or {} for system, overrides in _mapping(content, "systems", path).items()},
        sections=sections,
        readers=readers,
        ablations=_mapping(content, "ablations", path),
        ablate=_one(AblationPlan, content, "ablate", path),
        further=_one(FurtherPlan, content, "further", path) or FurtherPlan(),
        complexity=_one(ComplexityPlan, content, "complexity", path),
        defaults={**defaults, **sections},
        profiles={
            one: load_profile(spec.profile, root / "params.yaml", root / "profiles") for one, spec in backbones.items()
        },
    )
    if content:
        raise ParamsError(f"{path}: unknown keys {', '.join(content)}; correct or remove them")
    _check_names(study, path)
    return study


def _included(path: Path) -> dict[str, Any]:
    """The file over the one that its `include` names: definitions by name are joined, all else is replaced."""
    content = read_settings(path)
    name = content.pop("include", None)
    if name is None:
        return content
    found = _included(path.parent / name)
    for key, value in content.items():
        found[key] = {**found.get(key, {}), **value} if key in _JOINED else value
    return found


def _one(cls: type[T], content: dict[str, Any], key: str, path: Path) -> T | None:
    values = content.pop(key, None)
    return None if values is None else _filled(cls, values, f"{path}: {key}")


def _each(cls: type[T], content: dict[str, Any], key: str, path: Path) -> dict[str, T]:
    values = _mapping(content, key, path)
    return {name: _filled(cls, one, f"{path}: {key}.{name}") for name, one in values.items()}


def _mapping(content: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    """An entry that has names below it; an empty one has none."""
    found = content.pop(key, None) or {}
    if not isinstance(found, dict):
        raise ParamsError(f"{path}: {key} is {found!r}, expected names, each with what it stands for")
    return found


def _filled(cls: type[T], values: Any, where: str) -> T:
    known = {one.name: one for one in dataclasses.fields(cls)}  # type: ignore[arg-type]
    needed = {
        name
        for name, one in known.items()
        if one.default is dataclasses.MISSING and one.default_factory is dataclasses.MISSING
    }
    if not isinstance(values, dict) or needed - set(values) or set(values) - set(known):
        raise ParamsError(f"{where} is {values!r}, expected {', '.join(sorted(needed))}, and of {', '.join(known)}")
    hints = get_type_hints(cls)
    checked = {name: _value(value, hints[name], f"{where}.{name}") for name, value in values.items()}
    return cls(**checked)


def _value(value: Any, hint: Any, where: str) -> Any:
    if get_origin(hint) is not dict:
        return checked_value(value, hint, where)
    if not isinstance(value, dict):
        raise ParamsError(f"{where} is {value!r}, expected names, each with what it stands for")
    inner = get_args(hint)[1]
    return {name: one if inner is Any else checked_value(one, inner, f"{where}.{name}") for name, one in value.items()}


def _sections(sections: Settings, defaults: Settings, path: Path) -> tuple[Settings, dict[str, list[str]]]:
    """The study's own sections, and by section the systems it is `of`.

    A section with `like` takes the settings it does not have from the one named there.
    """
    found: Settings = {}
    readers: dict[str, list[str]] = {}
    for name, values in sections.items():
        if name in defaults:
            raise ParamsError(f"{path}: section {name} is in params.yaml too; remove it from the study")
        own = dict(values)
        if "of" in own:
            readers[name] = own.pop("of")
        model = own.pop("like", None)
        if model is not None:
            _known(model, defaults, f"{path}: sections.{name}.like")
        found[name] = {**{key: f"= {model}.{key}" for key in defaults.get(model, {})}, **own}
    return found, readers


def _check_names(study: Study, path: Path) -> None:
    """Finds what is wrong in the whole study at its start, and not when a trial comes to it after hours."""
    if study.split not in ("test", "dev"):
        raise ParamsError(f"{path}: split is {study.split!r}, expected test or dev")
    if type(study.workers) is not int or study.workers < 1:
        raise ParamsError(f"{path}: workers is {study.workers!r}, expected a whole number of at least 1")
    for ablation, overrides in study.ablations.items():
        if not overrides or not isinstance(overrides, dict):
            raise ParamsError(f"{path}: ablations.{ablation} is {overrides!r}, expected the settings that it changes")
    for name, spec in study.sets.items():
        if not spec.seeds or len(set(spec.seeds)) < len(spec.seeds):
            raise ParamsError(f"{path}: sets.{name}.seeds is {spec.seeds}, expected one or more, all different")
        _known(spec.backbone, study.backbones, f"{path}: sets.{name}.backbone")
        study.trial_settings(Trial(name, spec.seeds[0]))
        for system in spec.leave_out:
            _known(system, study.systems, f"{path}: sets.{name}.leave_out")
        for system in study.systems:
            study.trial_settings(Trial(name, spec.seeds[0]), system)
    for section, readers in study.readers.items():
        for system in readers:
            _known(system, study.systems, f"{path}: sections.{section}.of")
    _check_ablations(study, path)
    _check_further(study, path)
    if study.complexity:
        _known(study.complexity.set, study.sets, f"{path}: complexity.set")


def _check_ablations(study: Study, path: Path) -> None:
    plan = study.ablate
    for name in plan.sets if plan else []:
        _known(name, study.sets, f"{path}: ablate.sets")
        for seed in plan.seeds:
            _known(seed, study.sets[name].seeds, f"{path}: ablate.seeds on {name}")
    for ablation in plan.names if plan else []:
        _known(ablation, study.ablations, f"{path}: ablate.names")
    run = dict.fromkeys(name for one in study.sets for name in study.ablations_of(one))
    for system, names in plan.alone.items() if plan else []:
        _known(system, study.systems, f"{path}: ablate.alone")
        for ablation in names:
            _known(ablation, run, f"{path}: ablate.alone.{system}")
    for name, spec in study.sets.items():
        if spec.ablate and not plan:
            raise ParamsError(f"{path}: sets.{name}.ablate, but no ablate with the systems to measure; add it")
        for ablation in spec.ablate:
            _known(ablation, study.ablations, f"{path}: sets.{name}.ablate")
        for ablation in study.ablations_of(name):
            for system in plan.measured(ablation):
                study.trial_settings(Trial(name, spec.seeds[0], ablation), system)


def _check_further(study: Study, path: Path) -> None:
    plan = study.further
    for name in [*plan.sets, *plan.seeds, *plan.ablations]:
        _known(name, study.sets, f"{path}: further")
    for name, seeds in plan.seeds.items():
        for seed in seeds:
            _known(seed, study.sets[name].seeds, f"{path}: further.seeds.{name}")
    for name, ablations in plan.ablations.items():
        for ablation in ablations:
            _known(ablation, study.ablations_of(name), f"{path}: further.ablations.{name}")


def _known(name: Any, known: Iterable[Any], where: str) -> None:
    if name not in known:
        raise ParamsError(f"{where} names {name!r}, expected one of {', '.join(map(str, known))}")
