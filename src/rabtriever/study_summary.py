"""What the finished cells of a study say: means over seeds, intervals over queries, and the goals, reached or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from rabtriever.artifacts import ArtifactMismatchError
from rabtriever.metrics import Interval, paired_bootstrap
from rabtriever.study import Cell, Study
from rabtriever.study_goals import DEFAULT, RIVALS, goals
from rabtriever.study_resampling import CONFIDENCE, SAMPLES, SEED, Groups, grouped_bounds
from rabtriever.study_results import CellResult

SHOWN = ("nDCG@10", "R@1", "MRR@10", "S@1")
FURTHER = ("R@3", "R@10", "R@100", "ms_per_query", "bytes_per_document")
CALIBRATED = ("biencoder_calibrated", "distilled_calibrated")  # what the student gains beside its teacher's reading
RIVAL_TITLES = {
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "biencoder_calibrated": "bi-encoder with its terms",
    "distilled_calibrated": "distilled bi-encoder with its terms",
}
OFF_POLICY = "off_policy"  # differs from the default by its candidates alone, and NAME_off_policy from NAME

Values = dict[str, float]
K = TypeVar("K")


def summarise(
    study: Study,
    finished: Mapping[Cell, CellResult],
    missing: Mapping[Cell, str],
    command: str,
    groups: Mapping[str, Groups] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary in the form others read, and the details that the page shows beside it.

    Figures are per cent. An interval is the 95 % bootstrap over queries of nDCG@10, of each query's mean over seeds.

    Args:
        study: the definition.
        finished: what was measured.
        missing: why the other cells are not there.
        command: what to type to measure it again.
        groups: of `study_results.read_groups`.

    Raises:
        ArtifactMismatchError: cells of one set were measured on different data.
    """
    bases = {name: _by_seed(finished, name) for name in study.sets}
    bases = {name: cells for name, cells in bases.items() if cells}
    for name in bases:
        _check_data(name, [one for cell, one in finished.items() if cell.set == name])
    pairs = list(_pairs(study, finished))
    devices = dict.fromkeys(one.info["device"] for one in finished.values())
    summary = {
        "sets": {name: _set_row(study, name, list(cells.values())) for name, cells in bases.items()},
        "ablations": _ablations(study, finished, _ablation_row),
        "command": command,
        "device": "; ".join(devices),
    }
    details = {
        "study": study.name,
        "split": study.split,
        "sets": {name: _set_details(study, name, list(cells.values())) for name, cells in bases.items()},
        "ablations": _ablations(study, finished, _ablation_details),
        "student_vs_changed": _student_vs_changed(study, finished),
        "ablations_together": _ablations_together(study, finished),
        "on_policy": _on_policy(pairs),
        "on_policy_together": _over_all_queries((one.label, one.set, one.mined, one.random) for one in pairs),
        "missing": [{"cell": str(cell), "why": why} for cell, why in missing.items()],
        "hours": _hours(finished.values()),
        "further_hours": _hours(one for cell, one in finished.items() if study.is_further(cell)),
        "workers": study.workers,
    }
    data = {name: spec.data for name, spec in study.sets.items()}
    alike = {name: (groups or {}).get(data[name], {}) for name in bases}
    for name, cells in bases.items():
        details["sets"][name]["resampled"] = _resampled(list(cells.values()), alike[name])
    details["on_policy_resampled"] = _on_policy_resampled(pairs, alike)
    details["goals"] = goals(summary, details, data) if study.split == "test" else []
    return summary, details


def student_changes(summary: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, dict[str, Values | None]]:
    """How far the student is above each of `RIVAL_TITLES`, by set; None for what was not measured.

    Args:
        summary, details: of `summarise`. Sets without a student are left out.
    """
    return {
        name: {rival: row[f"student_vs_{rival}"] for rival in RIVALS} | details["sets"][name]["student_vs"]
        for name, row in summary["sets"].items()
        if "student" in row["systems"]
    }


def _hours(results: Iterable[CellResult]) -> float:
    return round(sum(one.info["spent"] for one in results) / 3600, 2)


def _by_seed(finished: Mapping[Cell, CellResult], name: str, ablation: str = "") -> dict[int, CellResult]:
    found = {cell.seed: one for cell, one in finished.items() if (cell.set, cell.ablation) == (name, ablation)}
    return dict(sorted(found.items()))


def _check_data(name: str, results: Sequence[CellResult]) -> None:
    hashes = {one.info["data_hash"] for one in results}
    if len(hashes) > 1:
        raise ArtifactMismatchError(
            f"cells of {name} were measured on {len(hashes)} versions of the data; remove its folders from the study's "
            "work folder, so that all are measured on the present one"
        )


def _set_row(study: Study, name: str, results: Sequence[CellResult]) -> dict[str, Any]:
    info = results[0].info
    systems = {system: _system_row(results, system) for system in study.systems_of(name)}
    versus = {f"student_vs_{rival}": _difference(results, "student", results, rival) for rival in RIVALS}
    return {
        "num_queries": info["num_queries"],
        "num_documents": info["num_documents"],
        "backbone": study.sets[name].backbone,
        "seeds": [one.info["seed"] for one in results],
        "systems": systems,
        "retention": _retention(systems),
        **versus,
    }


def _system_row(results: Sequence[CellResult], system: str) -> Values:
    interval = _interval(_mean_over_seeds(results, system))
    return {
        **{metric: _mean_metric(results, system, metric) for metric in SHOWN},
        "low": _per_cent(interval.low),
        "high": _per_cent(interval.high),
    }


def _mean_metric(results: Sequence[CellResult], system: str, metric: str) -> float:
    return round(float(np.mean([one.info["systems"][system][metric] for one in results])), 2)


def _retention(systems: Mapping[str, Values]) -> float | None:
    if "student" not in systems or systems.get("teacher", {}).get("nDCG@10", 0) <= 0:
        return None
    return round(100 * systems["student"]["nDCG@10"] / systems["teacher"]["nDCG@10"], 2)


def _mean_over_seeds(results: Sequence[CellResult], system: str) -> Values:
    parts = [one.per_query[system] for one in results]
    return {query_id: float(np.mean([part[query_id] for part in parts])) for query_id in parts[0]}


def _interval(values: Values) -> Interval:
    return paired_bootstrap(values, dict.fromkeys(values, 0.0), SAMPLES, SEED, CONFIDENCE)


def _difference(
    results: Sequence[CellResult], system: str, others: Sequence[CellResult], other: str
) -> dict[str, float] | None:
    """Mean nDCG@10 of one system less another's, with the paired interval; None where one was not measured."""
    if any(system not in one.per_query for one in results) or any(other not in one.per_query for one in others):
        return None
    return _paired(_mean_over_seeds(results, system), _mean_over_seeds(others, other))


def _paired(ours: Values, theirs: Values) -> dict[str, float]:
    interval = paired_bootstrap(ours, theirs, SAMPLES, SEED, CONFIDENCE)
    return {
        "difference": _per_cent(interval.mean),
        "low": _per_cent(interval.low),
        "high": _per_cent(interval.high),
    }


def _per_cent(value: float) -> float:
    return round(100 * value, 2)


def _resampled(results: Sequence[CellResult], groups: Groups) -> dict[str, Any]:
    """Of each rival the ends of the student's difference, in points, from groups of queries, and from seeds as well."""
    queries = next(iter(results[0].per_query.values()))
    if not set(queries) <= set(groups):
        return {"groups": None, "student_vs": {}}
    found: dict[str, Any] = {}
    for rival in RIVAL_TITLES:
        if any({"student", rival} - set(one.per_query) for one in results):
            continue
        differences = [
            {query: value - one.per_query[rival][query] for query, value in one.per_query["student"].items()}
            for one in results
        ]
        found[rival] = {
            "groups": _ends(grouped_bounds(differences, groups)),
            "seeds": _ends(grouped_bounds(differences, groups, seeds=True)),
        }
    return {"groups": len({groups[query_id] for query_id in queries}), "student_vs": found}


def _ends(bounds: tuple[float, float] | None) -> dict[str, float] | None:
    return None if bounds is None else {"low": _per_cent(bounds[0]), "high": _per_cent(bounds[1])}


def _set_details(study: Study, name: str, results: Sequence[CellResult]) -> dict[str, Any]:
    spec = study.sets[name]
    shown = [metric for metric in FURTHER if metric not in SHOWN]
    return {
        "data": spec.data,
        "profile": study.backbones[spec.backbone].profile,
        "rationale": spec.rationale,
        "student_vs": {rival: _difference(results, "student", results, rival) for rival in CALIBRATED},
        "device": "; ".join(dict.fromkeys(one.info["device"] for one in results)),
        "teacher_scope": results[0].info["teacher_scope"],
        "documents_limit": spec.documents,
        "train_queries": results[0].info["train_queries"],
        "missing_seeds": [seed for seed in spec.seeds if seed not in {one.info["seed"] for one in results}],
        "minutes": round(float(np.mean([one.info["spent"] for one in results])) / 60, 1),
        "systems": {
            system: {
                **{metric: _mean_metric(results, system, metric) for metric in shown},
                "per_seed": [one.info["systems"][system]["nDCG@10"] for one in results],
            }
            for system in study.systems_of(name)
        },
    }


def _ablations(
    study: Study,
    finished: Mapping[Cell, CellResult],
    row: Callable[[Sequence[CellResult], Sequence[CellResult]], dict[str, Any] | None],
) -> dict[str, dict[str, Any]]:
    """A row for the default and each ablation of each set, compared with the very runs that it started from."""
    found: dict[str, dict[str, Any]] = {}
    for name in study.sets:
        measured = {ablation: _by_seed(finished, name, ablation) for ablation in study.ablations_of(name)}
        measured = {ablation: changed for ablation, changed in measured.items() if changed}
        if not measured:
            continue
        shown = Counter(tuple(changed) for changed in measured.values()).most_common(1)[0][0]  # seeds that most have
        bases = [one for seed, one in _by_seed(finished, name).items() if seed in shown]
        if not bases:
            continue
        rows = {DEFAULT: row(bases, bases)}
        for ablation, changed in measured.items():
            rows[ablation] = row(list(changed.values()), [one.origin for one in changed.values()])
        found[name] = {ablation: values for ablation, values in rows.items() if values is not None}
    return found


def _ablation_row(changed: Sequence[CellResult], bases: Sequence[CellResult]) -> dict[str, Any] | None:
    """The student's figures; None where the ablation does not change the student."""
    if any("student" not in one.per_query for one in changed):
        return None
    interval = _interval(_mean_over_seeds(changed, "student"))
    return {
        "nDCG@10": _mean_metric(changed, "student", "nDCG@10"),
        "low": _per_cent(interval.low),
        "high": _per_cent(interval.high),
        "teacher_calls": round(float(np.mean([one.info["teacher_calls"] for one in changed]))),
        "seconds": round(float(np.mean([one.info["seconds_to_student"] for one in changed])), 1),
    }


def _ablation_details(changed: Sequence[CellResult], bases: Sequence[CellResult]) -> dict[str, Any]:
    """The seeds, and of every system measured its figure and its difference to the default's.

    A system that only some of the cells have names its seeds.
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
            "nDCG@10": _mean_metric(ours, system, "nDCG@10"),
            **(_difference(ours, system, theirs, system) or {}),
            **({"seeds": [one.info["seed"] for one in ours]} if len(both) < len(changed) else {}),
        }
    return {"seeds": [one.info["seed"] for one in changed], "systems": found}


def _systems(cells: Iterable[CellResult]) -> list[str]:
    """Those that any of the cells measured."""
    return list(dict.fromkeys(system for one in cells for system in one.per_query))


def _student_vs_changed(study: Study, finished: Mapping[Cell, CellResult]) -> dict[str, dict[str, Any]]:
    """Of each ablation that is about rivals, how far the student of the very same runs is above each of them, by set.

    An ablation that changes the student too is compared with that one.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in study.sets:
        bases = _by_seed(finished, name)
        for ablation in study.ablations_of(name):
            cells = _by_seed(finished, name, ablation)
            both = [
                (one if "student" in one.per_query else bases[seed], one)
                for seed, one in cells.items()
                if "student" in one.per_query or _started_from(one, bases.get(seed))
            ]
            rivals = [rival for rival in RIVAL_TITLES if both and rival in both[0][1].per_query]
            if "student" in study.ablate.measured(ablation):
                rivals = [rival for rival in rivals if ablation in study.ablate.alone.get(rival, [])]
            if not rivals:
                continue
            students, changed = zip(*both, strict=True)
            rows = {rival: _difference(students, "student", changed, rival) for rival in rivals}
            if any(rows.values()):
                found.setdefault(name, {})[ablation] = {"seeds": [one.info["seed"] for one in changed], "rivals": rows}
    return found


def _started_from(ablation: CellResult, base: CellResult | None) -> bool:
    return base is not None and all(base.per_query.get(system) == found for system, found in ablation.start.items())


def _ablations_together(study: Study, finished: Mapping[Cell, CellResult]) -> dict[str, dict[str, dict[str, float]]]:
    """Of each ablation and system the difference over the queries of all sets."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (ablation, system), change in _over_all_queries(_changes(study, finished)).items():
        found.setdefault(ablation, {})[system] = change
    return found


def _changes(
    study: Study, finished: Mapping[Cell, CellResult]
) -> Iterator[tuple[tuple[str, str], str, Values, Values]]:
    """Ablation and system, set, and each query's nDCG@10 with the ablation and without it."""
    for name in study.sets:
        for ablation in study.ablations_of(name):
            cells = list(_by_seed(finished, name, ablation).values())
            for system in _systems(cells):
                changed = [one for one in cells if system in one.per_query]
                both = changed, [one.origin for one in changed]
                yield (ablation, system), name, *(_mean_over_seeds(part, system) for part in both)


def _over_all_queries(parts: Iterable[tuple[K, str, Values, Values]]) -> dict[K, dict[str, float]]:
    """The paired difference by key over the queries of all sets, each query counted once.

    Args:
        parts: key, set, and the two values of each of its queries.
    """
    joined: dict[K, tuple[Values, Values]] = {}
    for key, name, *both in parts:
        for values, part in zip(joined.setdefault(key, ({}, {})), both, strict=True):
            values.update({f"{name} {query_id}": value for query_id, value in part.items()})
    return {key: {**_paired(ours, theirs), "queries": len(ours)} for key, (ours, theirs) in joined.items()}


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


def _pairs(study: Study, finished: Mapping[Cell, CellResult]) -> Iterator[_Pair]:
    for name in study.sets:
        for ablation in (one for one in study.ablations_of(name) if one.endswith(OFF_POLICY)):
            mined = ablation.removesuffix(OFF_POLICY).removesuffix("_")
            off = _by_seed(finished, name, ablation)
            known = _by_seed(finished, name, mined) if mined else {seed: one.origin for seed, one in off.items()}
            # the same teacher: both started from the same run
            on = {seed: one for seed, one in known.items() if seed in off and _same_start(one, off[seed])}
            both = list(on.values()), [off[seed] for seed in on]
            if on and all("student" in one.per_query for part in both for one in part):
                yield _Pair(name, mined or DEFAULT, list(on), *(_mean_over_seeds(part, "student") for part in both))


def _same_start(one: CellResult, other: CellResult) -> bool:
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
        found[label] = _ends(grouped_bounds([differences], names))
    return found


def _on_policy(pairs: Sequence[_Pair]) -> dict[str, dict[str, Any]]:
    """How much better the student is with candidates that it mined, by set and by what else was changed."""
    found: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        found.setdefault(pair.set, {})[pair.label] = {**_paired(pair.mined, pair.random), "seeds": pair.seeds}
    return found
