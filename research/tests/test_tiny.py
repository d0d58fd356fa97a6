"""The study `tiny` from data to summary: every system is trained and measured."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from rabtriever.core.artifacts import read_json
from rabtriever.data.beir_io import read_run
from rabtriever.evaluation.systems import System
from rabtriever.training.teacher_labels import read_candidates
from research import systems
from research.definition import read_study
from research.study import main
from research.systems import Given, run_file
from tests.closure import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def root_with_data(root: Path) -> Path:
    """The repository with the shipped data, and one seed of `tiny`."""
    (root / "data/household").symlink_to(ROOT / "data/household")
    path = root / "research/studies/tiny.yaml"
    path.write_text(path.read_text().replace("seeds: [7, 8]", "seeds: [7]"))
    return root


def test_every_system_is_measured_once(root_with_data: Path, monkeypatch: pytest.MonkeyPatch):
    """A system that cannot be measured shows after hours, or a killed study starts from the beginning."""
    root = root_with_data
    study = read_study("tiny", root)
    assert main(["tiny"], root) == 0
    row = read_json(study.results / "summary.json")["sets"]["household"]
    assert list(row["systems"]) == list(study.systems) and (row["num_queries"], row["seeds"]) == (10, [7])
    assert set(row["student_vs"]) == set(study.systems) - {"student"}
    trial = read_json(study.results / "household-7.json")
    assert trial["per_query"]["plain_teacher"] != trial["per_query"]["teacher"]
    assert all(len(values) == 10 for found in trial["per_query"].values() for values in found.values())
    (study.results / "household-7.json").unlink()  # as after a kill before the last line
    assert main(["tiny"], root) == 0
    assert read_json(study.results / "household-7.json") == trial, "something was run or timed again"
    work = study.work / "household-7"
    _check_candidates(work)
    monkeypatch.setattr(systems, "RERANKED", 20)  # the corpus has fewer than a hundred documents
    with contextlib.chdir(work):
        _check_rerank(systems.SYSTEMS["biencoder_rerank"].measure(Given()))


def _check_candidates(work: Path) -> None:
    """Stratified and random candidates are of the same queries and as many, and random ones reuse the bi-encoder."""
    mined, _, _ = read_candidates(work / "data/candidates")
    for folder in (work / "data/candidates_stratified", work / "variants/student_random/data/candidates"):
        found, _, manifest = read_candidates(folder)
        assert found.query_rows.tolist() == mined.query_rows.tolist()
        assert abs(int((found.candidates >= 0).sum()) - int((mined.candidates >= 0).sum())) <= 20
        assert not np.array_equal(found.candidates, mined.candidates)
    assert (work / "variants/student_random/models/teacher").is_symlink()
    assert not (work / "variants/plain/models/teacher").is_symlink()


def _check_rerank(found: System) -> None:
    """The teacher reorders the bi-encoder's first documents, and a live query gets the order of the batch."""
    first, given = read_run(run_file("biencoder")), Given()
    names = list(given.dataset.corpus)
    for query, text in list(given.queries.items())[:3]:
        proposed = sorted(first[query], key=lambda name: -first[query][name])[:20]
        assert set(found.run[query]) == set(proposed) and list(found.run[query]) != proposed
        ranked = sorted(found.run[query], key=lambda name: -found.run[query][name])[:10]
        assert [names[row] for row in found.search(text)] == ranked
