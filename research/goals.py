"""The goals of the study: what its figures have to reach, and whether they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RIVALS = ("biencoder", "biencoder_distilled")
RIVAL_TITLES = {
    "biencoder": "bi-encoder",
    "biencoder_distilled": "distilled bi-encoder",
    "biencoder_calibrated": "bi-encoder with its terms",
    "distilled_calibrated": "distilled bi-encoder with its terms",
    "late_interaction": "late interaction",
}
DEFAULT = "default"  # what nothing was changed in


def goals(summary: Mapping[str, Any], details: Mapping[str, Any], data: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each goal of the study, whether it is reached, and what was found; `reached` is None where nothing was measured.

    Data sets are counted, not sets: one that was run with two backbones counts once, and where every figure must hold,
    it must with both.

    Args:
        summary, details: of `summary.summarise`.
        data: the data set of every set of the study, also of those that only ablations are finished of.
    """
    sets = summary["sets"]
    found = [_retention_on_six(sets, data), _retention_on_all(sets), _student_wins(sets, details, data)]
    found += [_above_frequency(sets, details, data), _on_policy(details, data)]
    return found


def _goal(text: str, reached: bool | None, found: str) -> dict[str, Any]:
    return {"goal": text, "reached": reached, "found": found}


def _retention_on_six(sets: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: row["retention"] for name, row in sets.items() if row["retention"] is not None}
    measured, good = {data[name] for name in sets}, {data[name] for name in kept}
    good -= {data[name] for name, value in kept.items() if value < 98}
    text = "the student keeps at least 98 % of the teacher's nDCG@10 on six data sets"
    return _goal(text, len(good) >= 6 if kept else None, f"{len(good)} of {len(measured)}: {_list(good)}")


def _retention_on_all(sets: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: row["retention"] for name, row in sets.items() if row["retention"] is not None}
    below = [f"{name} {value:.1f} %" for name, value in kept.items() if value < 95]
    text = "the student keeps at least 95 % on all"
    return _goal(text, not below if kept else None, f"below: {_list(below)}" if below else f"all {len(kept)}")


def _student_wins(sets: Mapping[str, Any], details: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    text = "the student beats both bi-encoder rows significantly on four rationale sets and loses to them on none"
    won, sure, lost = set(), set(), []
    measured = False
    for name, row in sets.items():
        versus = [row[f"student_vs_{rival}"] for rival in RIVALS]
        if not details["sets"][name]["rationale"] or any(one is None for one in versus):
            continue
        measured = True
        if all(one["low"] > 0 for one in versus):
            won.add(data[name])
            resampled = details["sets"][name]["resampled"]["student_vs"]
            ends = [resampled.get(rival, {}).get("groups") for rival in RIVALS]
            if all(one is None or one["low"] > 0 for one in ends):
                sure.add(data[name])
        if any(one["high"] < 0 for one in versus):
            lost.append(name)
    found = f"wins: {_list(won)}" + (
        f" (resampled by groups of like queries, not {_list(won - sure)})" if won - sure else ""
    )
    return _goal(text, (len(won) >= 4 and not lost) if measured else None, f"{found}; loses: {_list(lost)}")


def _above_frequency(sets: Mapping[str, Any], details: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    text = "on esconv the student beats ranking by frequency (R@1, R@3 and MRR@10)"
    lines, reached = [], []
    pair = ("student", "frequency")
    for name in (name for name in sets if data[name] == "esconv" and sets[name]["systems"].keys() >= set(pair)):
        rows = [{**sets[name]["systems"][system], **details["sets"][name]["systems"][system]} for system in pair]
        ours, theirs = ([row[metric] for metric in ("R@1", "R@3", "MRR@10")] for row in rows)
        reached.append(all(mine > other for mine, other in zip(ours, theirs, strict=True)))
        lines.append(f"{name}: {_numbers(ours)} against {_numbers(theirs)}")
    return _goal(text, all(reached) if reached else None, "; ".join(lines) or "esconv was not measured")


def _on_policy(details: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """Judged on the default settings; what other pairs of `summary` give is told beside it.

    Three of five sets would be ahead by chance every other time, so all their queries together must be as well, beyond
    chance.
    """
    text = (
        "on-policy candidates beat random ones at no more teacher calls on three sets, and over all queries "
        "significantly"
    )
    pairs: dict[str, dict[str, list[Any]]] = {}
    for name, rows in details["on_policy"].items():
        for label, change in rows.items():
            pairs.setdefault(label, {}).setdefault(data[name], []).append(change)
    ahead = {
        label: {name for name, changes in found.items() if all(one["difference"] > 0 for one in changes)}
        for label, found in pairs.items()
    }
    lines = []
    for label, found in pairs.items():
        sure = {name for name, changes in found.items() if all(one["low"] > 0 for one in changes)}
        counts = f"{len(ahead[label])} of {len(found)}: {_list(ahead[label])}; significantly on {_list(sure)}"
        together = details["on_policy_together"][label]
        lines.append(f"{label}: {counts}; together {change_text(together)}")
        if ends := details["on_policy_resampled"][label]:
            lines[-1] += f", resampled by groups of like queries {ends_text(ends)}"
    reached = None
    if DEFAULT in pairs:
        reached = len(ahead[DEFAULT]) >= 3 and details["on_policy_together"][DEFAULT]["low"] > 0
    return _goal(text, reached, " · ".join(lines) or "not measured")


def change_text(interval: Mapping[str, float]) -> str:
    """A difference in points with its interval, as the page and the goals show it.

    >>> change_text({"difference": -0.46, "low": -0.91, "high": 0.01})
    '−0.5 (−0.9 to +0.0)'
    """
    return f"{interval['difference']:+.1f} ({ends_text(interval)})".replace("-", "−")


def ends_text(interval: Mapping[str, float]) -> str:
    """The ends of an interval in points.

    >>> ends_text({"low": -0.91, "high": 0.01})
    '−0.9 to +0.0'
    """
    return f"{interval['low']:+.1f} to {interval['high']:+.1f}".replace("-", "−")


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _numbers(values: Iterable[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)
