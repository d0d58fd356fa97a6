"""docs/results.md and its pictures say what the committed figures of the study say."""

from __future__ import annotations

import importlib
import xml.etree.ElementTree as ElementTree
from types import ModuleType

import pytest

from tests.closure import ROOT


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    monkeypatch.syspath_prepend(str(ROOT / "docs/img"))
    return importlib.import_module("update_results")


def test_the_page_is_fresh(results: ModuleType):
    """Figures that a newer study has overtaken are told as findings."""
    assert results.rendered() == results.PAGE.read_text(), "run `python docs/update_results.py`"


def test_the_pictures_are_fresh(results: ModuleType):
    """A picture that contradicts the table beside it is believed."""
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
    """A difference that may be chance is printed bold and counted among the wins."""
    assert results._signed({"difference": 1.0, "low": 0.0, "high": 2.0}) == "+1.0 (+0.0 to +2.0)"
    assert results._signed({"difference": -1.0, "low": -2.0, "high": -0.5}) == "**−1.0 (−2.0 to −0.5)**"


def test_intervals_are_clustered_where_they_can_be(results: ModuleType):
    """ALFRED's win over the distilled bi-encoder is told as significant, though its queries ask for few documents."""
    figures = results._figures()
    alfred = results.comparison(figures, "alfred", "biencoder_distilled")
    assert alfred["low"] < 0 < alfred["difference"]
    plain = figures["summary"]["sets"]["esconv"]["student_vs_biencoder"]
    assert results.comparison(figures, "esconv", "biencoder") == plain  # eight groups: too few
