"""The view of versions, and promotions and rollbacks with their reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.ops import by_hand, registry
from rabtriever.server.page_versions import versions
from rabtriever.server.project import NothingHere, Project
from tests.server.page_project import as_json


def test_versions_tell_decision_changes_and_losses(page_project: Path):
    """What somebody asks when a version was refused: what had changed, and which queries got worse."""
    found = as_json(versions(Project()))
    newest, _, champion, second, first = found["versions"]
    assert (found["champion"], found["previous"], found["total"]) == ("3", "2", 5)
    assert champion["aliases"] == ["champion"] and second["aliases"] == ["previous"]
    assert newest["decision"]["promoted"] is False and newest["tolerance"] == 1.0
    assert newest["decision"]["interval"] == {"mean": -0.2, "low": -1.4, "high": 1.1}
    assert newest["base"] == "3", "the champion that it was compared with, not the version before"
    changed = newest["changed"]
    assert (changed["data"], changed["code"], changed["artefacts"]) == (False, True, ["teacher"])
    assert changed["settings"] == [{"name": "train_teacher.steps", "before": "500", "after": "600"}]
    assert second["changed"]["data"] is True and "other data" in second["regressed"]["missing"]
    assert first["changed"] is None and first["regressed"] is None


def test_regressed_queries_are_those_that_lost_most(page_project: Path):
    """Queries that won are no losses."""
    lost = versions(Project())["versions"][0]["regressed"]
    assert lost["queries"] == 120 and lost["worse"] > 0 and lost["better"] > 0
    falls = [row["after"] - row["before"] for row in lost["rows"]]
    assert falls == sorted(falls) and max(falls) < 0 and len(falls) == min(10, lost["worse"])
    assert all(row["text"] for row in lost["rows"])


def test_no_registry_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server of a plain folder has none."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NothingHere, match="no registry to show"):
        versions(Project())


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions of the page's project have no files; each is taken to answer."""
    monkeypatch.setattr(registry, "check_answers", lambda version: None)


def test_a_promotion_by_hand_is_recorded(page_project: Path, answering: None):
    """Whoever comes next asks why a refused version is in service."""
    by_hand.promote(registry.get("5"), "  the queries of\nMonday need it ", "ann")
    [record] = by_hand.history(registry.get("5"))
    assert registry.champion().version == "5"
    assert (record["action"], record["before"], record["user"]) == ("promoted", "3", "ann")
    assert record["reason"] == "the queries of Monday need it"


def test_a_rollback_by_hand_is_recorded_on_the_version_that_came_back(page_project: Path, answering: None):
    """Two of them leave two records, the newest first."""
    by_hand.rollback("2", "3 forgets umbrellas", "ann")
    by_hand.rollback("previous", "it does not", "bob")
    assert registry.champion().version == "3"
    assert by_hand.history(registry.get("2"))[0]["reason"] == "3 forgets umbrellas"
    by_hand.rollback("2", "it does", "ann")
    assert [one["reason"] for one in by_hand.history(registry.get("2"))] == ["it does", "3 forgets umbrellas"]


@pytest.mark.parametrize(("reason", "found"), [(" \n", "blank"), ("x" * 501, "of 501 characters")])
def test_no_reason_no_change(page_project: Path, answering: None, reason: str, found: str):
    """A change that nobody can explain later is not made."""
    for act in (
        lambda: by_hand.promote(registry.get("5"), reason, "ann"),
        lambda: by_hand.rollback("2", reason, "ann"),
    ):
        with pytest.raises(ValueError, match=f"the reason is {found}"):
            act()
    assert registry.champion().version == "3"


def test_the_champion_is_not_promoted_again(page_project: Path, answering: None):
    """It would be recorded as if something had changed."""
    with pytest.raises(ValueError, match="version 3 is the champion already"):
        by_hand.promote(registry.get("3"), "why not", "ann")
    assert by_hand.history(registry.get("3")) == []
