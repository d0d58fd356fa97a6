"""Settings laid over others: formulas, wrong keys, differences."""

from __future__ import annotations

import re

import pytest

from rabtriever.core.settings import ParamsError
from research.overlay import differences, overlaid


def test_formulas_see_the_settings_before_the_change():
    """An ablation would otherwise depend on the order of its keys."""
    settings = {"mine": {"depth": 12, "random": 6, "name": "= x"}, "final_round": 1}
    changes = {"mine.depth": 0, "mine.random": "= mine.depth + mine.random * (final_round + 1)", "final_round": 0}
    changed = overlaid(settings, changes, "here")
    assert changed == {"mine": {"depth": 0, "random": 24, "name": "= x"}, "final_round": 0}
    assert settings["mine"]["depth"] == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mine.dept": 1}, "did you mean 'mine.depth'"),
        ({"mine.depth": "= mine.name + 1"}, "mine.name is 'text'"),
        ({"mine.depth": "= mine.depth **"}, "no sum or product"),
        ({"mine.depth": "= __import__('os')"}, "no sum or product"),
    ],
)
def test_wrong_changes_are_named(change: dict, message: str):
    """A misspelt key would run an ablation that changes nothing."""
    with pytest.raises(ParamsError, match=re.escape(message)):
        overlaid({"mine": {"depth": 1, "name": "text"}}, change, "here")


def test_differences_name_what_changed():
    """Says why a trial of hours ago does not count any more."""
    assert differences({"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"x": 1, "y": 4}, "c": 5}) == [
        "a.y: 2 -> 4",
        "b: 3 -> none",
        "c: none -> 5",
    ]
