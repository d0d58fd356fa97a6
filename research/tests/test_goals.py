"""The goals of the study where they are just reached and just missed."""

from __future__ import annotations

from typing import Any

import pytest

from research.goals import RIVALS, goals

EVEN = {"difference": 0.0, "low": -1.0, "high": 1.0}
AHEAD = {"difference": 1.0, "low": 0.1, "high": 2.0}
BEHIND = {"difference": -1.0, "low": -2.0, "high": -0.1}


def judged(part: str, sets: dict[str, dict[str, Any]], **data: str) -> bool | None:
    """Whether a goal is reached by sets of which only what is named differs from a student that is level.

    Args:
        part: of the goal's text.
        sets: what differs, by name.
        data: the data of a set whose name it is not.
    """
    summary, details = {}, {}
    for name, row in sets.items():
        versus, systems = row.get("versus", (EVEN, EVEN)), row.get("systems", {})
        summary[name] = {
            "retention": row.get("retention", 100.0),
            **{f"student_vs_{rival}": found for rival, found in zip(RIVALS, versus, strict=True)},
            "systems": {one: {"R@1": values[0], "MRR@10": values[1]} for one, values in systems.items()},
        }
        details[name] = {
            "rationale": row.get("rationale", True),
            "resampled": {"student_vs": {}},
            "systems": {one: {"R@3": values[2]} for one, values in systems.items()},
        }
    whole = {"sets": details, "on_policy": {}, "on_policy_together": {}, "on_policy_resampled": {}}
    found = goals({"sets": summary}, whole, {name: data.get(name, name) for name in sets})
    return next(one["reached"] for one in found if part in one["goal"])


def alike(count: int, **row: Any) -> dict[str, dict[str, Any]]:
    return {f"set{number}": row for number in range(count)}


def test_retention_on_six_data_sets():
    """Five are enough, a set a little below counts, or one set with two backbones counts twice."""
    assert judged("98 %", alike(6, retention=98.0)) is True
    assert judged("98 %", {**alike(5, retention=98.0), "other": {"retention": 97.9}}) is False
    assert judged("98 %", {**alike(5), "again": {}}, again="set0") is False
    assert judged("98 %", {**alike(6), "again": {"retention": 97.9}}, again="set0") is False


def test_retention_on_all():
    """One set below is made up for by others."""
    assert judged("95 %", alike(2, retention=95.0)) is True
    assert judged("95 %", {**alike(9), "other": {"retention": 94.9}}) is False
    assert judged("95 %", alike(1, retention=None)) is None


def test_four_sets_won_and_none_lost():
    """Three wins are enough, a win over one rival counts, a loss to one does not, or topical sets count."""
    won = alike(4, versus=(AHEAD, AHEAD))
    assert judged("beats both", won) is True
    assert judged("beats both", alike(3, versus=(AHEAD, AHEAD))) is False
    assert judged("beats both", {**alike(3, versus=(AHEAD, AHEAD)), "half": {"versus": (AHEAD, EVEN)}}) is False
    assert judged("beats both", {**won, "lost": {"versus": (AHEAD, BEHIND)}}) is False
    assert judged("beats both", {**won, "topical": {"versus": (AHEAD, BEHIND), "rationale": False}}) is True
    three = alike(3, versus=(AHEAD, AHEAD))
    assert judged("beats both", {**three, "topical": {"versus": (AHEAD, AHEAD), "rationale": False}}) is False


@pytest.mark.parametrize("place", range(3))
def test_frequency_is_beaten_in_every_figure_of_every_backbone(place: int):
    """One figure, or one backbone, is enough."""
    above, level = [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]
    level[place] = 1.0
    rows = {
        name: {"systems": {"student": values, "frequency": [1.0] * 3}}
        for name, values in (("first", above), ("second", level))
    }
    assert judged("esconv", {"first": rows["first"]}, first="esconv") is True
    assert judged("esconv", rows, first="esconv", second="esconv") is False
    assert judged("esconv", {"second": rows["second"]}, second="esconv") is False
    assert judged("esconv", rows) is None, "not esconv"
    alone = {"first": {"systems": {"frequency": [1.0] * 3}}}
    assert judged("esconv", alone, first="esconv") is None, "no student yet"
