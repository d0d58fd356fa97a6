"""What the finished trials of a study say: means over seeds, intervals over queries, and the goals, reached or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rabtriever.core.artifacts import ArtifactMismatchError
from research.ablations import ablation_details, ablation_rows
from research.definition import Study, Trial
from research.differences import Values, by_seed, difference, ends, interval, mean_metric
from research.finished import TrialResult
from research.goals import RIVAL_TITLES, RIVALS, goals
from research.resampling import Groups, grouped_bounds

SHOWN = ("nDCG@10", "R@1", "MRR@10", "S@1")
FURTHER = ("R@3", "R@10", "R@100", "ms_per_query", "bytes_per_document")
FORMS = (("student_paper", "student"), ("teacher_dpo", "teacher"))  # of the method, each less the default's
OTHERS = tuple(rival for rival in RIVAL_TITLES if rival not in RIVALS)  # of which no goal speaks


def summarise(
    study: Study,
    finished: Mapping[Trial, TrialResult],
    missing: Mapping[Trial, str],
    command: str,
    groups: Mapping[str, Groups] | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary in the form others read, and the details that the page shows beside it.

    Figures are per cent. An interval is the 95 % bootstrap over queries of nDCG@10, of each query's mean over seeds.

    Args:
        study: the definition.
        finished: what was measured.
        missing: why the other trials are not there.
        command: what to type to measure it again.
        groups: of `finished.read_groups`.

    Raises:
        ArtifactMismatchError: trials of one set were measured on different data.
    """
    bases = {name: by_seed(finished, name) for name in study.sets}
    bases = {name: trials for name, trials in bases.items() if trials}
    for name in bases:
        _check_data(study, name, [one for trial, one in finished.items() if trial.set == name])
    data = {name: spec.data for name, spec in study.sets.items()}
    alike = {name: (groups or {}).get(data[name], {}) for name in bases}
    devices = dict.fromkeys(
        device for one in finished.values() for device in (one.info["device"], *one.info.get("added", {}).values())
    )
    summary = {
        "sets": {name: _set_row(study, name, list(trials.values())) for name, trials in bases.items()},
        "ablations": ablation_rows(study, finished),
        "command": command,
        "device": "; ".join(devices),
    }
    details = {
        "study": study.name,
        "split": study.split,
        "sets": {name: _set_details(study, name, list(trials.values())) for name, trials in bases.items()},
        **ablation_details(study, finished, alike),
        "missing": [{"trial": str(trial), "why": why} for trial, why in missing.items()],
        "hours": _hours(finished.values()),
        "further_hours": _hours(one for trial, one in finished.items() if study.is_further(trial)),
        "workers": study.workers,
    }
    for name, trials in bases.items():
        details["sets"][name]["resampled"] = _resampled(list(trials.values()), alike[name])
    details["goals"] = goals(summary, details, data) if study.split == "test" else []
    return summary, details


def systems_measured(summary: Mapping[str, Any]) -> list[str]:
    """The systems of all sets, in the order of the set that has most of them."""
    fullest = sorted(summary["sets"].values(), key=lambda row: -len(row["systems"]))
    return list(dict.fromkeys(system for row in fullest for system in row["systems"]))


def student_changes(summary: Mapping[str, Any], details: Mapping[str, Any]) -> dict[str, dict[str, Values | None]]:
    """How far the student is above each of `RIVAL_TITLES`, by set; None for what was not measured.

    Args:
        summary, details: of `summarise`. Sets without a student are left out.
    """
    return {
        name: {
            rival: row.get(f"student_vs_{rival}") or details["sets"][name]["student_vs"].get(rival)
            for rival in RIVAL_TITLES
        }
        for name, row in summary["sets"].items()
        if "student" in row["systems"]
    }


def _hours(results: Iterable[TrialResult]) -> float:
    return round(sum(one.info["spent"] for one in results) / 3600, 2)


def _check_data(study: Study, name: str, results: Sequence[TrialResult]) -> None:
    hashes = {one.info["data_hash"] for one in results}
    if len(hashes) > 1:
        raise ArtifactMismatchError(
            f"trials of {name} were measured on {len(hashes)} versions of the data; remove those of the earlier ones, "
            f"{study.folder}/{name}-* and {study.committed}/{name}-*, so that all are measured on the present one"
        )


def _set_row(study: Study, name: str, results: Sequence[TrialResult]) -> dict[str, Any]:
    info = results[0].info
    systems = {system: _system_row(results, system) for system in _measured(study, name, results)}
    versus = {f"student_vs_{rival}": difference(results, "student", results, rival) for rival in RIVALS}
    return {
        "num_queries": len(next(iter(results[0].per_query.values()))),  # with a relevant document
        "num_documents": info["num_documents"],
        "backbone": study.sets[name].backbone,
        "seeds": [one.info["seed"] for one in results],
        "systems": systems,
        "retention": _retention(systems),
        **versus,
    }


def _system_row(results: Sequence[TrialResult], system: str) -> Values:
    return {
        **{metric: mean_metric(results, system, metric) for metric in SHOWN},
        **interval(results, system),
    }


def _retention(systems: Mapping[str, Values]) -> float | None:
    if "student" not in systems or systems.get("teacher", {}).get("nDCG@10", 0) <= 0:
        return None
    return round(100 * systems["student"]["nDCG@10"] / systems["teacher"]["nDCG@10"], 2)


def _resampled(results: Sequence[TrialResult], groups: Groups) -> dict[str, Any]:
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
            "groups": ends(grouped_bounds(differences, groups)),
            "seeds": ends(grouped_bounds(differences, groups, seeds=True)),
        }
    return {"groups": len({groups[query_id] for query_id in queries}), "student_vs": found}


def _set_details(study: Study, name: str, results: Sequence[TrialResult]) -> dict[str, Any]:
    spec = study.sets[name]
    shown = [metric for metric in FURTHER if metric not in SHOWN]
    return {
        "data": spec.data,
        "profile": study.backbones[spec.backbone].profile,
        "rationale": spec.rationale,
        "student_vs": {rival: difference(results, "student", results, rival) for rival in OTHERS},
        "forms": {form: difference(results, form, results, usual) for form, usual in FORMS},
        "device": "; ".join(dict.fromkeys(one.info["device"] for one in results)),
        "teacher_scope": results[0].info["teacher_scope"],
        "documents_limit": spec.documents,
        "train_queries": results[0].info["train_queries"],
        "added": [
            system
            for system in _measured(study, name, results)
            if any(system in one.info.get("added", {}) for one in results)
        ],
        "missing_seeds": [seed for seed in spec.seeds if seed not in {one.info["seed"] for one in results}],
        "minutes": round(float(np.mean([one.info["spent"] for one in results])) / 60, 1),
        "systems": {
            system: {
                **{metric: mean_metric(results, system, metric) for metric in shown},
                "per_seed": [one.info["systems"][system]["nDCG@10"] for one in results],
            }
            for system in _measured(study, name, results)
        },
    }


def _measured(study: Study, name: str, results: Sequence[TrialResult]) -> list[str]:
    """The systems of a set that every one of its trials has measured."""
    return [system for system in study.systems_of(name) if all(system in one.info["systems"] for one in results)]
