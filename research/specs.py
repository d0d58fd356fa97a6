"""What a study file says of its sets, backbones and ablations."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from research.overlay import Settings


@dataclass(frozen=True)
class SetSpec:
    """A data set with a backbone.

    Attributes:
        source: folder in BEIR layout, relative to the repository root.
        backbone: a name of the study's `backbones`.
        seeds: one trial each.
        minutes: guess of a trial's time, until one has been measured; it orders the trials.
        rationale: whether it counts among the rationale sets.
        documents: most documents kept, more only where test and dev judge more, judged ones first; 0 for all.
        train_queries: most training queries kept; 0 for all.
        leave_out: systems that are not measured on it.
        ablate: ablations measured on it with each of its seeds, beside those of the study's `ablate`.
        settings: dotted keys of params.yaml and their values, over those of the backbone.
    """

    source: str
    backbone: str
    seeds: list[int]
    minutes: float
    rationale: bool = True
    documents: int = 0
    train_queries: int = 0
    leave_out: list[str] = field(default_factory=list)
    ablate: list[str] = field(default_factory=list)
    settings: Settings = field(default_factory=dict)

    @property
    def data(self) -> str:
        """Name of the data set, which several sets may share."""
        return Path(self.source).name


@dataclass(frozen=True)
class BackboneSpec:
    """A profile of profiles/ and what the study changes in it."""

    profile: str
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class AblationPlan:
    """Which ablations are run.

    Attributes:
        sets: on these sets; one may name further ones for itself.
        seeds: with these seeds, each one of the set's.
        names: these of the study's `ablations`; empty for all.
        systems: what is measured where the ablation changes it.
        alone: systems of which some ablations are about, each with these: nothing else is measured of them, nor trained
            for it.
    """

    sets: list[str]
    seeds: list[int]
    names: list[str] = field(default_factory=list)
    systems: list[str] = field(default_factory=lambda: ["student", "teacher"])
    alone: dict[str, list[str]] = field(default_factory=dict)

    def measured(self, ablation: str) -> list[str]:
        """The systems that an ablation is measured on where it changes them."""
        return [system for system, names in self.alone.items() if ablation in names] or self.systems


@dataclass(frozen=True)
class FurtherPlan:
    """Trials that are left to those who ask for them.

    Attributes:
        sets: all trials of these sets.
        seeds: by set, all trials of these seeds.
        ablations: by set, these ablations with every seed.
    """

    sets: list[str] = field(default_factory=list)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    ablations: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class ComplexityPlan:
    """What the online cost is measured on: the models of a set's first trial, corpus sizes, document lengths."""

    set: str
    sizes: list[int]
    lengths: list[int]
    repeats: int
