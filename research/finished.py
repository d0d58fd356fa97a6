"""What a study has measured so far, what is still to do, in which order, and how long it may take."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import atomic_write, read_json
from rabtriever.data.beir_io import read_qrels
from research.definition import FAILURE, PER_QUERY, RESULT, START, Study, Trial, without_idle
from research.overlay import differences
from research.resampling import relevance_groups

GROUPS = "groups.json"

# what an ablation does again: the stages from the first that its settings change; other sections change everything
_STAGES = ("backbone", "train_biencoder", "train_teacher", "embed_corpus", "mine", "distill")
# whose training takes as long as train_biencoder and wants nothing but a warmed-up backbone; then those that want more
_FROM_BACKBONE = {"biencoder", "biencoder_sentence_transformers", "late_interaction"}
_APART = {*_FROM_BACKBONE, "biencoder_distilled", "distilled_calibrated"}
_TOGETHER = {"student", "teacher", "teacher_dpo"}  # for which the whole pipeline is run
_FIRST_STAGE = {
    "train_biencoder": 1,
    "train_teacher": 2,
    "polish": 2,
    "mine": 4,
    "final_round": 4,
    "predictor": 5,
    "distill": 5,
    "evaluate": 6,
}

# which documents a teacher reads for a query; nothing else depends on these settings
_READ = ("evaluate.teacher_all_up_to", "evaluate.teacher_pool")


@dataclass(frozen=True)
class TrialResult:
    """What a finished trial measured.

    Attributes:
        info: the content of trial.json.
        per_query: nDCG@10 from 0 to 1 by system and query.
        start: the same of the very run that an ablation started from, as another machine's differs by chance.
    """

    info: dict[str, Any]
    per_query: dict[str, dict[str, float]]
    start: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def run_here(self) -> bool:
        """Whether all of it was measured in the trial's work folder, where it lies: an ablation can start from it."""
        return not self.info.get("added")

    @property
    def origin(self) -> TrialResult:
        """The run that an ablation started from, as far as the ablation has changed it."""
        return replace(self, per_query=self.start)

    def without(self, *systems: str) -> TrialResult:
        """The same without some of the systems."""

        def kept(part: dict[str, Any]) -> dict[str, Any]:
            return {name: found for name, found in part.items() if name not in systems}

        info = {**self.info, "systems": kept(self.info["systems"])}
        return TrialResult(info, kept(self.per_query), kept(self.start))


def read_results(study: Study, committed: bool = True) -> tuple[dict[Trial, TrialResult], dict[Trial, str]]:
    """The finished trials of a study, and why each other one is missing.

    A trial that was run here goes before a committed one. Among both are an ablation whose teacher read other documents
    than it would now, finished without its teacher, and a base trial that lacks some systems, or had other settings of
    theirs, and is otherwise as it would be now; it is finished without those.

    Args:
        study: the definition.
        committed: whether what others have measured and committed counts.
    """
    finished: dict[Trial, TrialResult] = {}
    missing: dict[Trial, str] = {}
    present = study.present()
    for trial in study.trials():
        here = _read_here(study, trial)
        known = [here if committed or (here and here.run_here) else None]
        known += [_read_committed(study, trial)] if committed and study.publish else []
        found = [one for one in known if one is not None]
        changes = [_changes(study, trial, one) for one in found]
        failure = study.folder / trial.folder / FAILURE
        failed = f"failed: {read_json(failure)['message']}" if failure.is_file() else ""
        if [] in changes:
            finished[trial] = found[changes.index([])]
        elif changes:
            why, part = _unfinished(study, trial, found, changes)
            missing[trial] = f"{why}; {failed}" if failed else why
            if part is not None:
                finished[trial] = part
        else:
            missing[trial] = failed or ("not run yet" if trial.set in present else "its data are not there")
    return finished, missing


def _changes(study: Study, trial: Trial, one: TrialResult, without: Sequence[str] = ()) -> list[str]:
    """What of a trial's conditions is different now, systems in `without` apart."""
    before = one.info["conditions"]
    if without:  # of a base trial
        measured = {name: own for name, own in before["measured"].items() if name not in without}
        idle = study.idle(measured)
        before = {name: value for name, value in before.items() if name not in idle} | {"measured": measured}
    return differences(without_idle(before), study.conditions(trial, without))


def _unfinished(
    study: Study, trial: Trial, found: Sequence[TrialResult], changes: Sequence[Sequence[str]]
) -> tuple[str, TrialResult | None]:
    """Why a trial has to be run again, and what counts of it until then."""
    parts = [(added, one) for one in found if (added := lacking(study, trial, one))]
    if parts:
        added, fullest = min(parts, key=lambda part: len(part[0]))
        return _told(added, fullest), fullest.without(*added)
    both = zip(found, changes, strict=True)
    rest = [one.without("teacher") for one, changed in both if _of_teacher_alone(trial, changed)]
    kept = rest[0] if rest and rest[0].per_query else None
    return f"was run with other settings: {'; '.join(changes[0])}", kept


def _told(added: Iterable[str], one: TrialResult) -> str:
    """Why those systems have to be measured."""
    new = [name for name in added if name not in one.info["systems"]]
    changed = [name for name in added if name in one.info["systems"]]
    parts = ("was run without", new), ("was run with other settings of", changed)
    return "; ".join(f"{why} {', '.join(names)}" for why, names in parts if names)


def lacking(study: Study, trial: Trial, one: TrialResult) -> list[str]:
    """The systems that a base trial was run without, or with other settings of their own.

    None where anything else of it is different, or nothing would be left of it.
    """
    if trial.ablation:
        return []
    before = one.info["conditions"].get("measured", {})
    added = [name for name, own in study.systems_of(trial.set).items() if before.get(name) != own]
    kept = set(before) - set(added)
    return added if added and kept and not _changes(study, trial, one, added) else []


def to_complete(study: Study, trial: Trial) -> TrialResult | None:
    """What counts of what others have measured of a base trial that lacks nothing but some systems.

    None without such, and where the trial was run here: what it lacks is then measured in the very same run.
    """
    here = _read_here(study, trial)
    if here is not None and here.run_here and lacking(study, trial, here):
        return None
    known = [here, _read_committed(study, trial) if study.publish else None]
    parts = ((one, lacking(study, trial, one)) for one in known if one is not None)
    return next((one.without(*added) for one, added in parts if added), None)


def _of_teacher_alone(trial: Trial, changes: Iterable[str]) -> bool:
    """Whether nothing but an ablation's teacher depends on the settings that `differences` told."""
    return bool(trial.ablation) and all(change.split(": ")[0] in _READ for change in changes)


def _read_here(study: Study, trial: Trial) -> TrialResult | None:
    folder = study.folder / trial.folder
    names = [RESULT, PER_QUERY, *([START] if trial.ablation else [])]
    if not all((folder / name).is_file() for name in names):  # an ablation of an earlier version has no START
        return None
    return TrialResult(*(read_json(folder / name) for name in names))


def _read_committed(study: Study, trial: Trial) -> TrialResult | None:
    path = _committed(study, trial)
    if not path.is_file():
        return None
    content = read_json(path)
    per_query, start = (
        {name: dict(zip(content["queries"], values, strict=True)) for name, values in content[part].items()}
        for part in ("per_query", "start")
    )
    return TrialResult(content["info"], per_query, start)


def read_groups(study: Study, finished: Mapping[Trial, TrialResult]) -> dict[str, dict[str, int]]:
    """By data set, which of the queries measured have the same right documents, see resampling.py.

    Of data that are not there, as they were committed. A study on dev queries has none.
    """
    if study.split != "test":
        return {}
    path = study.committed / GROUPS
    known = read_json(path) if study.publish and path.is_file() else {}
    measured: dict[str, set[str]] = {}
    for trial, one in finished.items():
        measured.setdefault(trial.set, set()).update(next(iter(one.per_query.values())))
    present = study.present()
    found: dict[str, dict[str, int]] = {}
    for name, spec in study.sets.items():
        if name not in measured:
            continue
        groups = known.get(spec.data, {})
        if name in present:
            groups = relevance_groups(read_qrels(study.root / spec.source / "qrels/test.tsv"))
        found.setdefault(spec.data, {}).update({query: groups[query] for query in sorted(measured[name] & set(groups))})
    return found


def commit_results(
    study: Study, finished: Mapping[Trial, TrialResult], groups: Mapping[str, Mapping[str, int]]
) -> None:
    """Writes finished trials where version control keeps them: one file each, nDCG@10 as lists in the queries' order.

    The groups of `read_groups` go beside them, one file for all, which keeps those of data that are not told of.
    """
    if groups:
        path = study.committed / GROUPS
        known = read_json(path) if path.is_file() else {}
        _write_lines(path, known | {data: known.get(data, {}) | found for data, found in groups.items()})
    for trial, one in finished.items():
        queries = list(next(iter(one.per_query.values())))
        content: dict[str, Any] = {"info": one.info, "queries": queries}
        for part, systems in (("per_query", one.per_query), ("start", one.start)):
            content[part] = {name: [found[query] for query in queries] for name, found in systems.items()}
        _write_lines(_committed(study, trial), content)


def _write_lines(path: Path, content: Mapping[str, Any]) -> None:
    """JSON with a line for each key, so that version control shows what of it changed."""
    with atomic_write(path) as file:
        file.write("{" + ",\n".join(f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content) + "}\n")


def _committed(study: Study, trial: Trial) -> Path:
    return study.committed / f"{trial.folder}.json"


def in_order(
    study: Study, missing: Iterable[Trial], finished: Mapping[Trial, TrialResult]
) -> list[tuple[Trial, float]]:
    """Trials to run with the seconds each may take: first seeds of all sets first, and among those the cheap ones.

    So a study that is stopped early has one seed of everything rather than every seed of something. An ablation comes
    after the trial it starts from.
    """
    waves = {(name, seed): place for name, spec in study.sets.items() for place, seed in enumerate(spec.seeds)}
    found = [(trial, estimate(study, trial, finished)) for trial in missing]

    def place(item: tuple[Trial, float]) -> tuple[int, bool, float, Trial]:
        trial, seconds = item
        return waves[trial.set, trial.seed], bool(trial.ablation), seconds, trial

    return sorted(found, key=place)


def estimate(study: Study, trial: Trial, finished: Mapping[Trial, TrialResult]) -> float:
    """Seconds that a trial may take: as other seeds took, or as its stages in the base trial, or the file's guess.

    Args:
        study: with a guess for every set.
        trial: finished or not.
        finished: the trials measured so far; one may lack some systems.
    """
    added = lacking(study, trial, finished[trial]) if trial in finished else []
    took = finished[trial].info.get("seconds") if added else None
    if took and set(added) <= _FROM_BACKBONE:
        return took["backbone"] + len(added) * took["train_biencoder"]
    if took and not set(added) & _TOGETHER:
        return sum(took.values()) + len(_FROM_BACKBONE & set(added)) * took["train_biencoder"]
    alike = [one.info["spent"] for other, one in finished.items() if other._replace(seed=trial.seed) == trial]
    if alike:
        return sum(alike) / len(alike)
    guess = 60.0 * study.sets[trial.set].minutes
    if not trial.ablation:
        return guess
    sections = [key.split(".")[0] for key in study.ablations[trial.ablation]]
    redone = _STAGES[min(_FIRST_STAGE.get(section, 0) for section in sections) :]
    if set(study.ablate.measured(trial.ablation)) <= _APART:
        redone = ("train_biencoder",)
    spent = finished[trial.base].info.get("seconds") if trial.base in finished else None
    if spent is None:  # of a set of rivals alone a trial does not know its stages either
        return guess * len(redone) / (2 * len(_STAGES))
    return sum(seconds for step, seconds in spent.items() if step.split("-")[0] in redone)
