"""One trial of a study, from a data folder to its figures.

A base trial runs the whole pipeline and measures every system. Where others have measured some of it, it measures only
the systems that they lack or that have other settings now. A system that differs from the product in some settings is a
variant: it has a workspace of its own that starts from the trial's. An ablation is a variant too, of the product or of
such a system. Only what it changes is measured, and the student without building its index: not every form has one.
"""

from __future__ import annotations

import contextlib
import csv
import os
import platform
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rabtriever.core.artifacts import read_json, read_manifest, write_json
from rabtriever.core.settings import ParamsError
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.preparation import write_dataset
from research import complexity
from research.definition import FAILURE, PER_QUERY, RESULT, START, Study, Trial
from research.finished import TrialResult, lacking, to_complete
from research.overlay import Settings, overlaid
from research.subset import subset, with_dev_as_test
from research.systems import (
    MEASUREMENTS,
    PLAIN_TEACHER,
    POOL,
    STAGES,
    adds_preference,
    final_student,
    going_on,
    measuring_steps,
    open_student,
    report,
    training_steps,
)
from research.workspace import Step, Workspace, pipeline_steps, seconds_beside

PATHS = Paths()

TABLE = "evaluation.json"
RAW = "data/raw"


def run_trial(study: Study, trial: Trial, whole: bool = False) -> dict[str, Any]:
    """The content of trial.json, after doing whatever of the trial is not done yet.

    Args:
        study: the definition.
        trial: one of its trials; the base trial of an ablation has to be finished here.
        whole: measure all of a base trial here, also what others have measured of it; an ablation starts from no other.
    """
    folder = study.folder / trial.folder
    base = _workspace(study, trial.base, study.trial_settings(trial.base))
    if trial.ablation:
        systems, per_query, info = _ablation(study, trial, base)
    else:
        known = None if whole else _known(study, trial, base)
        systems, per_query, info = _every_system(study, trial, base, known)
    info = {
        "set": trial.set,
        "seed": trial.seed,
        "ablation": trial.ablation,
        "backbone": study.sets[trial.set].backbone,
        "device": device_name(),
        **info,
        "systems": systems,
        "conditions": study.conditions(trial),
    }
    (folder / RESULT).unlink(missing_ok=True)  # of an earlier measurement, whose figures these are not
    write_json(folder / PER_QUERY, per_query)
    if trial.ablation:
        start = read_json(study.folder / trial.base.folder / PER_QUERY)
        write_json(folder / START, {name: start[name] for name in systems if name in start})
    write_json(folder / RESULT, info)  # last: a trial that has it is finished
    (folder / FAILURE).unlink(missing_ok=True)
    return info


def check_systems(study: Study) -> None:
    """Finds a system that nobody can measure before anything is run.

    Raises:
        ParamsError: there is one, and names those that can be.
    """
    asked = [*study.ablate.systems, *study.ablate.alone] if study.ablate else []
    for name in [*study.systems, *asked]:
        plain = name in ("frequency", "bm25") and not study.systems.get(name)
        if name not in MEASUREMENTS and not plain:
            raise ParamsError(
                f"study {study.name}: no system {name!r}, expected frequency, bm25, {', '.join(MEASUREMENTS)}"
            )


def measure_complexity(study: Study) -> dict[str, Any]:
    """The content of complexity.json: what a query costs online, with the models of a finished trial."""
    plan, trial = study.complexity, study.complexity_trial()
    workspace = _workspace(study, trial, study.trial_settings(trial))
    student = final_student(workspace.settings["final_round"])
    workspace.make(str(student))
    with contextlib.chdir(workspace.folder):
        teacher, prompt, scorer = open_student(student)
    rng = np.random.default_rng(trial.seed)
    rows = complexity.measure_complexity(teacher, prompt, scorer, plan.sizes, plan.lengths, plan.repeats, rng)
    return {
        "rows": rows,
        "set": trial.set,
        "backbone": study.sets[trial.set].backbone,
        "device": device_name(),
        "conditions": study.complexity_conditions(),
    }


def record_failure(study: Study, trial: Trial, error: Exception) -> None:
    """Notes why a trial has no result; the next run tries it again."""
    trace = "".join(traceback.format_exception(error))
    told = f"{type(error).__name__}: {error}".splitlines()[0]  # the trace has the rest; a page may show this
    message = told.replace(f"{study.root.resolve()}/", "")
    write_json(study.folder / trial.folder / FAILURE, {"message": message, "traceback": trace})


def _known(study: Study, trial: Trial, base: Workspace) -> TrialResult | None:
    """What others have measured of the trial on the same data, if it lacks nothing but some systems.

    None where the whole pipeline has to be run for those anyway, and for a student, which is of its teacher's run.
    """
    found, systems = to_complete(study, trial), study.systems_of(trial.set)
    asked = lacking(study, trial, found) if found else []
    if found is None or any(name == "student" or _is_evaluated(name, systems[name]) for name in asked):
        return None
    base.make(str(PATHS.prepared))
    data = read_manifest(base.path(str(PATHS.prepared)), "data", verify=False)
    return found if found.info["data_hash"] == data.hash else None


def _every_system(
    study: Study, trial: Trial, base: Workspace, known: TrialResult | None
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Rows, nDCG@10 per query and facts of a base trial; it trains only what the systems measured need.

    What is known of it is not measured again; the facts then name the systems that were added, with the device, and
    their cost is what they would have added to that run. An earlier measurement of theirs stays counted.
    """
    wanted = study.systems_of(trial.set)
    asked = {
        name: overrides for name, overrides in wanted.items() if known is None or name not in known.info["systems"]
    }
    evaluated = any(_is_evaluated(name, overrides) for name, overrides in asked.items())
    table, found = _evaluation(base) if evaluated else ({"systems": {}}, {})
    systems, per_query, workspaces = {}, {}, {}
    for name, overrides in asked.items():
        if not overrides and name in table["systems"]:
            systems[name], per_query[name] = table["systems"][name], found[name]
            continue
        workspaces[report(name)] = workspace = _variant(study, trial, name, base, base) if overrides else base
        systems[name], per_query[name] = _row(workspace, name)
    if known is not None:
        plain = [report(name) for name in known.info["systems"] if name in MEASUREMENTS and not wanted[name]]
        spent = seconds_beside(base, plain, workspaces)
        systems, per_query = {**known.info["systems"], **systems}, {**known.per_query, **per_query}
        added = {**known.info.get("added", {}), **dict.fromkeys(asked, device_name())}
        facts = {**known.info, "spent": round(known.info["spent"] + spent, 2), "added": added}
        return {name: systems[name] for name in wanted}, {name: per_query[name] for name in wanted}, facts
    spent = sum(workspace.own_seconds() for workspace in {base, *workspaces.values()})
    return systems, per_query, {**_facts(base, spent, evaluated), "teacher_scope": table.get("teacher_scope")}


def _is_evaluated(name: str, overrides: Settings) -> bool:
    """Whether a system takes the stage `evaluate`: its figures come from there, or the documents it reads."""
    how = MEASUREMENTS.get(name)
    return how is None or POOL in how.reads or (name == "student" and not overrides)


def _evaluation(base: Workspace) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """The table of the stage `evaluate`, and nDCG@10 by system and query."""
    base.make(str(PATHS.reports / TABLE))
    return read_json(base.path(str(PATHS.reports / TABLE))), _table_per_query(
        base.path(str(PATHS.reports / "per_query.tsv"))
    )


def _ablation(study: Study, trial: Trial, base: Workspace) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The same of an ablation, for the systems that its settings change.

    Raises:
        ParamsError: it changes none of those that the study asks for.
    """
    product = _workspace(study, trial, study.trial_settings(trial), base=base)
    sections = {key.split(".")[0] for key in study.ablations[trial.ablation]}
    changed = sections - {"evaluate"}  # how it is measured changes nobody
    measured = study.systems_of(trial.set)
    asked = [one for one in study.ablate.measured(trial.ablation) if one in measured or not study.systems.get(one)]
    names = [name for name in asked if changed & product.reads(report(name))]
    if not names:
        raise ParamsError(f"ablation {trial.ablation} changes none of {', '.join(asked)}; remove it")
    systems, per_query, spent = {}, {}, 0.0
    for name in names:
        workspace = product
        if study.systems.get(name):
            start = _workspace(study, trial.base, study.trial_settings(trial.base, name), f"variants/{name}")
            workspace = _variant(study, trial, name, start, base)
        systems[name], per_query[name] = _row(workspace, name)
        spent += workspace.own_seconds() if workspace is not product else 0.0
    return systems, per_query, _facts(product, spent + product.own_seconds(), "student" in names)


def _variant(study: Study, trial: Trial, name: str, start: Workspace, product: Workspace) -> Workspace:
    """The workspace of a system that differs from the product in settings of its own, in a trial or in an ablation."""
    return _workspace(study, trial, study.trial_settings(trial, name), f"variants/{name}", start, product)


def _row(workspace: Workspace, name: str) -> tuple[dict[str, float], dict[str, float]]:
    workspace.make(report(name))
    found = read_json(workspace.path(report(name)))
    return found["row"], found["per_query"]


def _workspace(
    study: Study,
    trial: Trial,
    settings: Settings,
    below: str = "",
    base: Workspace | None = None,
    product: Workspace | None = None,
) -> Workspace:
    """The workspace of a trial, or of a variant below it.

    The data come from a subset where the study limits them. What `base` made is taken from there where it is the same,
    and a teacher that is the product's with DPO goes on from that one.
    """
    spec = study.sets[trial.set]
    limited = spec.documents or spec.train_queries or study.split == "dev"
    source = (study.root / spec.source).resolve()
    settings = overlaid(settings, {"prepare.source": RAW if limited else str(source)}, "source")
    steps = pipeline_steps(study.root / "dvc.yaml", STAGES, settings)
    if limited:
        cut = partial(_cut, source, spec.documents, spec.train_queries, study.split, settings["prepare"])
        name = f"subset-{spec.documents}-{spec.train_queries}-{study.split}"
        steps.append(Step(name, ("prepare",), (str(source),), (RAW,), cut))
    final_round = settings["final_round"]
    steps += [*training_steps(final_round), *measuring_steps(final_round, served=not trial.ablation)]
    goes_on = product is not None and adds_preference(settings, product)
    workspace = Workspace(study.folder / trial.folder / below, settings, going_on(steps) if goes_on else steps, base)
    if base is not None:
        _point(workspace.path(POOL), base.path(str(PATHS.reports / "runs")))
    if goes_on:
        product.make(str(PATHS.teacher))
        _point(workspace.path(PLAIN_TEACHER), product.path(str(PATHS.teacher)))
    return workspace


def _point(link: Path, target: Path) -> None:
    """Makes a link, or makes it anew."""
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _cut(source: Path, documents: int, train_queries: int, split: str, prepare: Settings) -> None:
    dataset = load_dataset(source)
    if split == "dev":
        dataset = with_dev_as_test(dataset, prepare["dev_fraction"])
    limits = {"train": train_queries, "dev": prepare["max_dev_queries"], "test": prepare["max_test_queries"]}
    write_dataset(subset(dataset, limits, documents), RAW)


def _facts(workspace: Workspace, spent: float, student: bool = True) -> dict[str, Any]:
    """What a trial says beside its rows.

    Args:
        workspace: the trial's.
        spent: seconds of what was done for it.
        student: whether that led to a student of its own.

    Returns:
        Counts, hash of the data, seconds spent; with a student the teacher's calls, and seconds of each step to it.
    """
    manifest = read_manifest(workspace.path(str(PATHS.prepared)), "data", verify=False)
    facts = {
        "num_queries": manifest.info["test_queries"],
        "num_documents": manifest.info["documents"],
        "train_queries": manifest.info["train_queries"],
        "data_hash": manifest.hash,
        "spent": round(spent, 2),
    }
    if not student:
        return facts
    final_round = workspace.settings["final_round"]
    seconds = workspace.seconds(str(final_student(final_round)))
    calls = sum(_teacher_calls(workspace, number) for number in range(final_round + 1))
    return {
        **facts,
        "teacher_calls": calls,
        "seconds": seconds,
        "seconds_to_student": round(sum(seconds.values()), 2),
    }


def _teacher_calls(workspace: Workspace, number: int) -> int:
    manifest = read_manifest(workspace.path(f"data/candidates/{number}"), "candidates", verify=False)
    return int(manifest.info["teacher_calls"])


def _table_per_query(path: Path) -> dict[str, dict[str, float]]:
    """nDCG@10 by system and query from the table that the stage `evaluate` writes."""
    found: dict[str, dict[str, float]] = {}
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            found.setdefault(row["system"], {})[row["query_id"]] = float(row["nDCG@10"])
    return found


def device_name() -> str:
    """The GPU's name, or the processor's with the number of threads."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    models = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).is_file() else []
