"""What finished trials say together, with values computed by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rabtriever.core.artifacts import read_json
from rabtriever.core.settings import ParamsError
from rabtriever.evaluation.gap import gap_closed
from research.definition import Study, Trial
from research.summary import page, summarise, write_summary

QUERIES = [f"q{number:02}" for number in range(20)]
LEAD = np.linspace(0.1, 0.3, 20)


def trial(seed: int, shift: float = 0.0, lead: float = 1.0) -> dict[str, Any]:
    """A trial whose student closes 80 % of the teacher's lead; `shift` moves the bi-encoder."""
    ndcg = {"biencoder": 0.4 + shift, "student": 0.4 + 0.8 * lead * LEAD, "teacher": 0.4 + lead * LEAD}
    values = {name: np.broadcast_to(value, 20) for name, value in ndcg.items()}
    return {
        "seed": seed,
        "profile": "small",
        "device": "abacus" if seed == 7 else "slide rule",
        "num_documents": 12,
        "seconds": {"mine": 1800.0},
        "systems": {name: {"ms_per_query": float(seed)} for name in values},
        "queries": QUERIES,
        "per_query": {
            name: {"nDCG@10": value.tolist(), "MRR@10": [0.5] * 20, "R@1": [0.25] * 20, "S@1": [0.0] * 20}
            for name, value in values.items()
        },
    }


def test_the_summary_has_means_gap_and_share(study: Study):
    """The page would tell a gap that was not measured."""
    found = summarise(study, {Trial("one", 7): trial(7, 0.01), Trial("one", 8): trial(8, -0.01)})
    row = found["sets"]["one"]
    assert (row["backbone"], row["num_queries"], row["num_documents"], row["seeds"]) == ("small", 20, 12, [7, 8])
    student = row["systems"]["student"]
    assert student["nDCG@10"] == 56.0 and (student["MRR@10"], student["R@1"], student["S@1"]) == (50.0, 25.0, 0.0)
    assert student["ms_per_query"] == 7.5 and student["low"] < 56.0 < student["high"]
    assert row["gap"]["difference"] == 20.0 and row["gap"]["low"] == pytest.approx(17.4, abs=0.3)
    assert row["gap_closed"] == {"value": 80.0, "low": 80.0, "high": 80.0}
    assert list(row["student_vs"]) == ["biencoder", "teacher"]
    assert row["student_vs"]["biencoder"]["difference"] == 16.0 and row["student_vs"]["teacher"]["difference"] == -4.0
    assert (found["command"], found["device"], found["hours"]) == ("make study STUDY=toy", "abacus; slide rule", 1.0)


def test_values_of_a_query_are_averaged_over_seeds_first(study: Study):
    """Seeds taken for more queries make every interval too narrow."""
    one = summarise(study, {Trial("one", 7): trial(7)})["sets"]["one"]
    two = summarise(study, {Trial("one", 7): trial(7), Trial("one", 8): trial(8)})["sets"]["one"]
    assert one["gap"] == two["gap"] and one["num_queries"] == two["num_queries"] == 20


def test_without_a_significant_gap_no_share_is_told(study: Study):
    """A share of nothing may be any number."""
    assert gap_closed(*[dict.fromkeys(QUERIES, 1.0)] * 3) is None
    row = summarise(study, {Trial("two", 9): trial(9, lead=0.0)})["sets"]["two"]
    assert row["gap"] == {"difference": 0.0, "low": 0.0, "high": 0.0} and row["gap_closed"] is None


def test_a_study_without_a_teacher_has_no_gap(study: Study):
    """A study of rivals alone could not be summarised."""
    alone = trial(7)
    for part in ("systems", "per_query"):
        alone[part] = {"biencoder": alone[part]["biencoder"]}
    row = summarise(study, {Trial("one", 7): alone})["sets"]["one"]
    assert row["gap"] is None and row["gap_closed"] is None and row["student_vs"] == {}


def test_seeds_with_other_queries_are_refused(study: Study):
    """A mean over different queries says nothing of either."""
    other = {**trial(8), "queries": [f"x{query}" for query in QUERIES]}
    with pytest.raises(ParamsError, match="other test queries"):
        summarise(study, {Trial("one", 7): trial(7), Trial("one", 8): other})


def test_page_and_picture_show_the_summary(study: Study):
    """A generated page that leaves a set or a system out."""
    found = write_summary(study, {Trial("one", 7): trial(7), Trial("two", 9): trial(9, lead=0.0)})
    folder = study.results
    assert read_json(folder / "summary.json") == found
    text = (folder / "README.md").read_text()
    assert text == page("toy", found)
    assert "| one | small | 12 | 20 | 1 | 40.0 | 56.0 | 60.0 |" in text
    assert (
        "| one | **+20.0 (+17.3 to +22.7)** | 80 % (80 to 80) |" in text and "| two | +0.0 (+0.0 to +0.0) | – |" in text
    )
    assert "**−4.0 (−4.5 to −3.5)**" in text
    picture = (folder / "differences.svg").read_text()
    assert picture.count("<svg") == 1 and "biencoder" in picture and ">two<" in picture
    write_summary(study, {Trial("one", 7): trial(7), Trial("two", 9): trial(9, lead=0.0)})
    assert (folder / "differences.svg").read_text() == picture, "the same figures give another file"


def test_a_study_without_trials_has_an_empty_summary(study: Study, root: Path):
    """`--summary-only` before the first trial ends in a traceback."""
    assert write_summary(study, {})["sets"] == {} and (study.results / "README.md").is_file()
