"""What a study's ablations say: each against the runs that it started from, mined candidates against random ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.definition import Study, Trial
from research.differences import (
    Values,
    by_seed,
    difference,
    ends,
    interval,
    mean_metric,
    mean_over_seeds,
    over_all_queries,
    paired,
)
from research.finished import TrialResult
from research.goals import DEFAULT, RIVAL_TITLES
from research.resampling import Groups, grouped_bounds

OFF_POLICY = "off_policy"  # differs from the default by its candidates alone, and NAME_off_policy from NAME


def ablation_rows(study: Study, finished: Mapping[Trial, TrialResult]) -> dict[str, dict[str, Any]]:
    """The student's figures by set and ablation, with the default's; sets and ablations not measured are left out."""
    return _tables(study, finished, _row)


def ablation_details(
    study: Study, finished: Mapping[Trial, TrialResult], groups: Mapping[str, Groups]
) -> dict[str, dict[str, Any]]:
    """What the page shows of them beside that, by the name of the table.

    Args:
        study: the definition.
        finished: what was measured.
        groups: of queries, by set; empty where unknown.

    Returns:
        `ablations`: every system's figure and its difference to the run that the ablation started from, by set and
        ablation; `student_vs_changed`: the student over the rivals that an ablation is about; `ablations_together`: the
        differences over the queries of all sets, by ablation and system; `on_policy`: mined candidates against random
        ones, by set and by what else was changed, `on_policy_together`: the same over the queries of all sets,
        `on_policy_resampled`: its ends from groups of queries.
    """
    pairs = list(_pairs(study, finished))
    return {
        "ablations": _tables(study, finished, _details),
        "student_vs_changed": _student_vs_changed(study, finished),
        "ablations_together": _together(study, finished),
        "on_policy": _on_policy(pairs),
        "on_policy_together": over_all_queries((one.label, one.set, one.mined, one.random) for one in pairs),
        "on_policy_resampled": _on_policy_resampled(pairs, groups),
    }


def _tables(
    study: Study,
    finished: Mapping[Trial, TrialResult],
    row: Callable[[Sequence[TrialResult], Sequence[TrialResult]], dict[str, Any] | None],
) -> dict[str, dict[str, Any]]:
    """A row for the default and each ablation of each set, compared with the very runs that it started from."""
    found: dict[str, dict[str, Any]] = {}
    for name in study.sets:
        measured = {ablation: by_seed(finished, name, ablation) for ablation in study.ablations_of(name)}
        measured = {ablation: changed for ablation, changed in measured.items() if changed}
        if not measured:
            continue
        shown = Counter(tuple(changed) for changed in measured.values()).most_common(1)[0][0]  # seeds that most have
        bases = [one for seed, one in by_seed(finished, name).items() if seed in shown]
        if not bases:
            continue
        rows = {DEFAULT: row(bases, bases)}
        for ablation, changed in measured.items():
            rows[ablation] = row(list(changed.values()), [one.origin for one in changed.values()])
        found[name] = {ablation: values for ablation, values in rows.items() if values is not None}
    return found


def _row(changed: Sequence[TrialResult], bases: Sequence[TrialResult]) -> dict[str, Any] | None:
    """The student's figures; None where the ablation does not change the student."""
    if any("student" not in one.per_query for one in changed):
        return None
    return {
        "nDCG@10": mean_metric(changed, "student", "nDCG@10"),
        **interval(changed, "student"),
        "teacher_calls": round(float(np.mean([one.info["teacher_calls"] for one in changed]))),
        "seconds": round(float(np.mean([one.info["seconds_to_student"] for one in changed])), 1),
    }


def _details(changed: Sequence[TrialResult], bases: Sequence[TrialResult]) -> dict[str, Any]:
    """The seeds, and of every system measured its figure and its difference to the default's.

    A system that only some of the trials have names its seeds.
    """
    found = {}
    for system in _systems(changed):
        both = [
            (one, base)
            for one, base in zip(changed, bases, strict=True)
            if system in one.per_query and system in base.per_query
        ]
        if not both:
            continue
        ours, theirs = zip(*both, strict=True)
        found[system] = {
            "nDCG@10": mean_metric(ours, system, "nDCG@10"),
            **(difference(ours, system, theirs, system) or {}),
            **({"seeds": [one.info["seed"] for one in ours]} if len(both) < len(changed) else {}),
        }
    return {"seeds": [one.info["seed"] for one in changed], "systems": found}


def _systems(trials: Iterable[TrialResult]) -> list[str]:
    """Those that any of the trials measured."""
    return list(dict.fromkeys(system for one in trials for system in one.per_query))


def _student_vs_changed(study: Study, finished: Mapping[Trial, TrialResult]) -> dict[str, dict[str, Any]]:
    """Of each ablation that is about rivals, how far the student of the very same runs is above each of them, by set.

    An ablation that changes the student too is compared with that one.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in study.sets:
        bases = by_seed(finished, name)
        for ablation in study.ablations_of(name):
            trials = by_seed(finished, name, ablation)
            both = [
                (one if "student" in one.per_query else bases[seed], one)
                for seed, one in trials.items()
                if "student" in one.per_query or _started_from(one, bases.get(seed))
            ]
            rivals = [rival for rival in RIVAL_TITLES if both and rival in both[0][1].per_query]
            if "student" in study.ablate.measured(ablation):
                rivals = [rival for rival in rivals if ablation in study.ablate.alone.get(rival, [])]
            if not rivals:
                continue
            students, changed = zip(*both, strict=True)
            rows = {rival: difference(students, "student", changed, rival) for rival in rivals}
            if any(rows.values()):
                found.setdefault(name, {})[ablation] = {"seeds": [one.info["seed"] for one in changed], "rivals": rows}
    return found


def _started_from(ablation: TrialResult, base: TrialResult | None) -> bool:
    return base is not None and all(base.per_query.get(system) == found for system, found in ablation.start.items())


def _together(study: Study, finished: Mapping[Trial, TrialResult]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each ablation and system the difference over the queries of all sets."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (ablation, system), change in over_all_queries(_changes(study, finished)).items():
        found.setdefault(ablation, {})[system] = change
    return found


def _changes(
    study: Study, finished: Mapping[Trial, TrialResult]
) -> Iterator[tuple[tuple[str, str], str, Values, Values]]:
    """Ablation and system, set, and each query's nDCG@10 with the ablation and without it."""
    for name in study.sets:
        for ablation in study.ablations_of(name):
            trials = list(by_seed(finished, name, ablation).values())
            for system in _systems(trials):
                changed = [one for one in trials if system in one.per_query and system in one.start]
                if not changed:  # its set leaves the system out
                    continue
                both = changed, [one.origin for one in changed]
                yield (ablation, system), name, *(mean_over_seeds(part, system) for part in both)


class _Pair(NamedTuple):
    """A set's student with candidates that it mined and with random ones, of the same teacher.

    Attributes:
        set: its name.
        label: what else was changed in both.
        seeds: those averaged over.
        mined, random: nDCG@10 from 0 to 1 by query.
    """

    set: str
    label: str
    seeds: list[int]
    mined: Values
    random: Values


def _pairs(study: Study, finished: Mapping[Trial, TrialResult]) -> Iterator[_Pair]:
    for name in study.sets:
        for ablation in (one for one in study.ablations_of(name) if one.endswith(OFF_POLICY)):
            mined = ablation.removesuffix(OFF_POLICY).removesuffix("_")
            off = by_seed(finished, name, ablation)
            known = by_seed(finished, name, mined) if mined else {seed: one.origin for seed, one in off.items()}
            # the same teacher: both started from the same run
            on = {seed: one for seed, one in known.items() if seed in off and _same_start(one, off[seed])}
            both = list(on.values()), [off[seed] for seed in on]
            if on and all("student" in one.per_query for part in both for one in part):
                yield _Pair(name, mined or DEFAULT, list(on), *(mean_over_seeds(part, "student") for part in both))


def _same_start(one: TrialResult, other: TrialResult) -> bool:
    """Whether two ablations started from the same run, by the systems that both have of it."""
    shared = one.start.keys() & other.start.keys()
    return bool(shared) and all(one.start[system] == other.start[system] for system in shared)


def _on_policy_resampled(pairs: Sequence[_Pair], groups: Mapping[str, Groups]) -> dict[str, dict[str, float] | None]:
    """The ends of the same over the queries of all sets, from groups of queries; None where those of a set are unknown.

    Args:
        pairs: of all sets.
        groups: by set.
    """
    found = {}
    for label in dict.fromkeys(pair.label for pair in pairs):
        chosen = [pair for pair in pairs if pair.label == label]
        if any(not set(pair.mined) <= set(groups.get(pair.set, {})) for pair in chosen):
            found[label] = None
            continue
        joined = [(f"{one.set} {query}", one, query) for one in chosen for query in one.mined]
        differences = {name: one.mined[query] - one.random[query] for name, one, query in joined}
        names = {name: f"{one.set} {groups[one.set][query]}" for name, one, query in joined}
        found[label] = ends(grouped_bounds([differences], names))
    return found


def _on_policy(pairs: Sequence[_Pair]) -> dict[str, dict[str, Any]]:
    """How much better the student is with candidates that it mined, by set and by what else was changed."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        found.setdefault(pair.set, {})[pair.label] = {**paired(pair.mined, pair.random), "seeds": pair.seeds}
    return found
