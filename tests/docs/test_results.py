"""docs/results.md and the pictures say what the committed figures of the studies say."""

from __future__ import annotations

import importlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest

from tests.closure import ROOT

SUMMARY = {
    "sets": {
        "saycan": {
            "backbone": "smollm2",
            "num_queries": 28,
            "num_documents": 551,
            "seeds": [7],
            "systems": {
                "biencoder": {"nDCG@10": 40.0, "ms_per_query": 20.0},
                "student": {"nDCG@10": 48.5, "ms_per_query": 21.0},
                "teacher": {"nDCG@10": 50.0, "ms_per_query": 900.0},
            },
            "gap": {"difference": 10.0, "low": 4.0, "high": 15.0},
            "gap_closed": {"value": 85.0, "low": 61.2, "high": 110.4},
            "student_vs": {"biencoder": {"difference": 8.5, "low": -0.1, "high": 14.0}},
        }
    },
    "command": "make study STUDY=llm",
    "device": "two cores",
    "hours": 3.5,
}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.syspath_prepend(str(ROOT / "docs/img"))
    return importlib.import_module("update_results")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("update_tables")


def test_the_page_is_fresh(results: ModuleType):
    """Figures that a newer study has overtaken are told as findings."""
    assert results.rendered() == results.PAGE.read_text(), "run `python docs/update_results.py`"


def test_the_pictures_are_fresh(results: ModuleType):
    """A picture that contradicts the page around it is believed."""
    draw = importlib.import_module("draw")
    for name, content in draw.pictures().items():
        assert content == (draw.FOLDER / name).read_text(), f"{name}: run `python docs/img/draw.py`"


def test_the_pictures_are_whole_and_ask_for_nothing_from_elsewhere(results: ModuleType):
    """A picture that is not XML is a broken icon; a font or image of another host does not load from a file."""
    draw = importlib.import_module("draw")
    for content in draw.pictures().values():
        root = ElementTree.fromstring(content)
        assert root.find("{http://www.w3.org/2000/svg}desc").text
        assert not [word for word in ("url(http", "@import", "href=") if word in content]


def test_an_interval_that_touches_zero_is_no_win(results: ModuleType):
    """A difference that may be chance is printed bold and read as a win."""
    assert results.signed({"difference": 1.0, "low": 0.0, "high": 2.0}) == "+1.0 (+0.0 to +2.0)"
    assert results.signed({"difference": -1.0, "low": -2.0, "high": -0.5}) == "**−1.0 (−2.0 to −0.5)**"


def test_a_study_tells_gap_and_share(results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A study that was measured is told as missing, or its figures stand below other titles."""
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert "no figures yet" in results.study("llm")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm/summary.json").write_text(json.dumps(SUMMARY))
    head, _, row, *_ = results.study("llm").splitlines()
    cells = [dict(zip(head.split(" | "), row.split(" | "), strict=True))[one] for one in ("gap", "gap closed")]
    assert cells == ["**+10.0 (+4.0 to +15.0)**", "85 % (61 to 110)"]
    assert "| SayCan | 28 | 1 | 40.0 | 48.5 | 50.0 |" in row and "| +8.5 (−0.1 to +14.0) | – | 21.0 | – |" in row


def test_intervals_of_the_archive_are_clustered_where_they_can_be(results: ModuleType):
    """ALFRED's win over the distilled bi-encoder is told as significant, though its queries ask for few documents."""
    figures = json.loads(results.ARCHIVE.read_text())
    alfred = results.archived(figures, "alfred", "biencoder_distilled")
    assert alfred["low"] < 0 < alfred["difference"]
    plain = figures["summary"]["sets"]["esconv"]["student_vs_biencoder"]
    assert results.archived(figures, "esconv", "biencoder") == plain  # eight groups: too few


def test_a_gap_that_is_not_significant_has_no_share(tables: ModuleType):
    """The student is said to keep nearly all of what may be nothing."""
    gap = {"mean": 2.04, "low": 1.0, "high": 3.0}
    report = {"metric": "nDCG@10", "gap": gap, "gap_closed": {"value": 91.6, "low": 60.0, "high": 120.0}}
    adds = "Reading adds +2.0 ({} to +3.0) points of nDCG@10 to the bi-encoder"
    closed = "; the student closes **92 % (60 to 120)** of this gap."
    assert tables.gap(report).strip() == adds.format("+1.0") + closed
    report = {"metric": "nDCG@10", "gap": {**gap, "low": -0.5}, "gap_closed": None}
    assert tables.gap(report).strip() == adds.format("−0.5") + ", which is not significant."


def test_the_prior_stands_where_it_is_asked_for(tables: ModuleType):
    """A reader of the first page takes the optional layer for the retriever."""
    row = dict.fromkeys(tables.COLUMNS, 1.0)
    report = {"dataset": "x", "num_queries": 3, "split": "test", "num_documents": 4}
    report["systems"] = {"student": row, "student_prior": row}
    assert "student_prior" not in tables.table(report) and "| student_prior |" in tables.table(report, True)
