"""One trial: a set with a seed, every system measured in one workspace, and variants of it beside."""

from __future__ import annotations

import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rabtriever.core.artifacts import read_json, read_manifest
from rabtriever.core.settings import ParamsError
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.preparation import write_dataset
from research.definition import SetSpec, Settings, Study, Trial, overlaid
from research.subset import subset
from research.systems import METRICS, PREPARED, STAGES, SYSTEMS, measuring_steps, report, training_steps
from research.workspace import Step, Workspace, pipeline_steps

RAW = "data/raw"
DEFAULT = "student"  # what a system with settings of its own is measured as


def run_trial(study: Study, trial: Trial) -> dict[str, Any]:
    """The content of a finished trial's file, after doing whatever of the trial is not done yet."""
    settings = study.trial_settings(trial)
    base = _workspace(study, trial, settings)
    rows, values, seconds = {}, {}, {}
    for name in sorted(study.systems, key=lambda name: bool(study.systems[name])):  # first what variants start from
        measured_as, changed = variant(name, study.systems[name], settings)
        place = _workspace(study, trial, changed, f"variants/{name}", base) if changed != settings else base
        place.make(report(measured_as))
        found = read_json(place.path(report(measured_as)))
        rows[name], values[name] = found["row"], found["per_query"]
        if place is not base:
            seconds |= {f"{name}/{step}": spent for step, spent in place.seconds().items()}
    manifest = read_manifest(base.path(PREPARED), "data", verify=False)
    queries = sorted(next(iter(values.values())))
    return {
        "set": trial.set,
        "seed": trial.seed,
        "profile": study.sets[trial.set].profile,
        "device": device_name(),
        "num_documents": manifest.info["documents"],
        "train_queries": manifest.info["train_queries"],
        "seconds": {**base.seconds(), **seconds},
        "systems": {name: rows[name] for name in study.systems},
        "settings": study.conditions(trial),
        "queries": queries,
        "per_query": {
            name: {metric: [values[name][query][place] for query in queries] for place, metric in enumerate(METRICS)}
            for name in study.systems
        },
    }


def variant(name: str, overrides: Settings, settings: Settings) -> tuple[str, Settings]:
    """What a system is measured as, and its settings.

    Args:
        name: of the system.
        overrides: dotted keys set anew; `measured_as` names the function of systems.py, `student` without it.
        settings: of the trial.

    Raises:
        ParamsError: a system without overrides that has no function, or an unknown `measured_as`.
    """
    own = dict(overrides)
    measured_as = own.pop("measured_as", DEFAULT if own else name)
    if measured_as not in SYSTEMS:
        raise ParamsError(
            f"system {name!r} is measured as {measured_as!r}, expected one of {', '.join(SYSTEMS)}; "
            "or give the settings that it changes"
        )
    return measured_as, overlaid(settings, own, f"systems.{name}")


def check_systems(study: Study) -> None:
    """Finds a system that nobody can measure before anything is run.

    Raises:
        ParamsError: as of `variant`.
    """
    for name, spec in study.sets.items():
        settings = study.trial_settings(Trial(name, spec.seeds[0]))
        for system, overrides in study.systems.items():
            variant(system, overrides, settings)


def _workspace(
    study: Study, trial: Trial, settings: Settings, below: str = "", base: Workspace | None = None
) -> Workspace:
    """The workspace of a trial, or of a variant below it, on data cut to the limits of the set."""
    spec = study.sets[trial.set]
    source = (study.root / spec.source).resolve()
    settings = overlaid(settings, {"prepare.source": RAW}, "source")
    limits = f"subset-{spec.documents}-{spec.train_queries}-{spec.test_queries}"
    cut = Step(limits, ("prepare",), (str(source),), (RAW,), partial(_cut, source, spec, settings["prepare"]))
    pipeline = pipeline_steps(study.root / "dvc.yaml", STAGES, RAW)
    steps = [cut, *pipeline, *training_steps(), *measuring_steps()]
    return Workspace(study.work / str(trial) / below, settings, steps, base)


def _cut(source: Path, spec: SetSpec, prepare: Settings) -> None:
    limits = {"train": spec.train_queries, "dev": prepare["max_dev_queries"], "test": spec.test_queries}
    write_dataset(subset(load_dataset(source), limits, spec.documents), RAW)


def device_name() -> str:
    """The GPU's name, or the processor's with the number of threads."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{(models or [platform.machine()])[0]}, {threads} thread{'s' if threads > 1 else ''}"
