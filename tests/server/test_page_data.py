"""What the views show is what the run has left, and it is told when there is none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.server import page_data
from rabtriever.server.project import Finished, NothingHere, Project
from tests.server.page_project import HOSTILE


@pytest.fixture
def small() -> Finished:
    """Two systems on two test queries over three documents; `c` is relevant for no training query."""
    corpus = {name: Document(name, name.upper(), f"about {name}") for name in "abc"}
    queries = {"t": "known", "q1": "one two three four", "q2": "one"}
    qrels = {"train": {"t": {"a": 1}}, "test": {"q1": {"a": 2, "c": 1}, "q2": {"b": 0, "a": 1}}}
    runs = {
        "bm25": {"q1": {"b": 1.0, "a": 0.5}, "q2": {"a": 2.0}},
        "student": {"q1": {"a": 3.0, "c": 3.0}, "q2": {"b": 1.0}},
    }
    per_query = {
        name: {q: {"nDCG@10": value} for q in ("q1", "q2")} for name, value in (("bm25", 0.5), ("student", 0.9))
    }
    return Finished(Dataset(corpus, queries, qrels), {}, {}, [], per_query, runs)


def test_losses_tell_values_first_places_and_unseen_documents(small: Finished):
    """A wrong count hides the queries that somebody looks for."""
    found = page_data.losses(small)
    one, two = found["queries"]
    assert found["systems"] == ["bm25", "student"]
    assert (one["unseen"], one["relevant"], one["words"]) == (1, 2, 4)
    assert (two["unseen"], two["relevant"]) == (0, 1)
    assert one["first"] == {"bm25": 0, "student": 2}
    assert two["first"] == {"bm25": 1, "student": 0}
    assert one["values"] == {"bm25": 0.5, "student": 0.9}


def test_rankings_are_ordered_as_metrics_order_them(small: Finished):
    """Documents of equal score in another order than the metric's would not explain its value."""
    found = page_data.rankings(small, "q1")
    assert found["rankings"] == {"bm25": [("b", 1.0), ("a", 0.5)], "student": [("a", 3.0), ("c", 3.0)]}
    assert found["grades"] == {"a": 2, "c": 1}
    assert found["documents"]["c"] == {"title": "C", "text": "about c"}
    with pytest.raises(KeyError):
        page_data.rankings(small, "t")


def test_a_document_in_no_ranking_is_shown_where_it_is_relevant(small: Finished):
    """A relevant document that both systems miss would have no name on the page."""
    small.runs["student"]["q1"] = {"b": 1.0}
    assert "c" in page_data.rankings(small, "q1")["documents"]


def test_splits_count_what_training_has_not_seen(small: Finished):
    """Unseen documents explain losses; counting those of training as unseen would not."""
    split = page_data._split(small, "test", small.dataset.qrels["test"])
    assert (split["relevant_documents"], split["unseen_documents"], split["queries_with_unseen"]) == (2, 1, 1)
    assert split["grades"] == {0: 1, 1: 2, 2: 1}
    assert page_data._split(small, "train", small.dataset.qrels["train"])["unseen_documents"] is None


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([1, 1, 2, 4], [(1, 1, 2), (2, 2, 1), (3, 3, 0), (4, 4, 1)]),
        ([], [(0, 0, 0)]),
        (list(range(48)), [(2 * n, 2 * n + 1, 2) for n in range(24)]),
    ],
)
def test_histogram(values: list[int], bars: list[tuple[int, int, int]]):
    """Every value is in one bar."""
    assert [tuple(bar.values()) for bar in page_data.histogram(values)["bars"]] == bars


def test_judged_finds_a_query_whatever_its_case(page_folder: Path, finished: Any):
    """A query that somebody types with other capitals is the judged one."""
    query_id = list(finished.dataset.qrels["test"])[3]
    found = page_data.judged(Project(page_folder), finished.dataset.queries[query_id].upper() + " !")
    assert found == {"id": query_id, "grades": finished.dataset.qrels["test"][query_id]}
    assert page_data.judged(Project(page_folder), "nobody asked this") == {"id": None, "grades": {}}


def test_data_of_a_run(page_folder: Path, finished: Any):
    """Sizes are those of the prepared data, and a broken expectation stays one."""
    found = page_data.data(finished, Project(page_folder))
    assert (found["documents"], found["splits"]["test"]["queries"]) == (490, 120)
    assert sum(bar["count"] for bar in found["words"]["documents"]["bars"]) == 490
    assert [one["success"] for one in found["expectations"]] == [True, True, True, False]
    assert "models/retriever" in found["truncation"]["missing"]


def test_truncation_is_counted_with_the_retrievers_tokenizer(tmp_path: Path, tokenizer: Any, prompt_params: Any):
    """A share of another tokenizer would say nothing about what the models read."""
    from dataclasses import asdict

    from rabtriever.core.artifacts import write_manifest

    folder = Project(tmp_path).paths.retriever
    tokenizer.save_pretrained(folder / "encoder/tokenizer")
    write_manifest(folder, "retriever", {}, {"prompt": asdict(prompt_params)})
    texts = {"documents": ["short", "long words " * 300], "queries": ["short"]}
    found = page_data.truncation(Project(tmp_path), texts)
    assert found["documents"] == {"cut": 1, "of": 2, "limit": prompt_params.max_document_tokens}
    assert found["queries"]["cut"] == 0


def test_no_finished_run_is_told(tmp_path: Path):
    """A server without a project still shows its page."""
    with pytest.raises(NothingHere, match="no finished run here .*evaluation.json.*make run"):
        Project(tmp_path).finished()


def test_reports_of_other_data_are_refused(page_folder: Path, tmp_path: Path):
    """Rankings over documents that the data no longer have cannot be shown."""
    folder = tmp_path / "project"
    shutil.copytree(page_folder, folder)
    path = folder / "reports/runs/student.trec"
    path.write_text(path.read_text().replace(" Q0 d1", " Q0 gone1", 1))
    with pytest.raises(NothingHere, match="document 'gone1.*', which data/prepared lacks; run dvc repro"):
        Project(folder).finished()


def test_a_new_run_is_shown_without_a_restart(page_folder: Path, tmp_path: Path):
    """Figures of the run before would stand beside the new version."""
    folder = tmp_path / "project"
    shutil.copytree(page_folder, folder)
    project = Project(folder)
    assert project.finished() is project.finished()
    path = folder / "reports/evaluation.json"
    evaluation = json.loads(path.read_text())
    path.write_text(json.dumps({**evaluation, "dataset": "another"}))
    os.utime(path, (1, 1))
    assert project.finished().evaluation["dataset"] == "another"


def test_hostile_text_stays_data(finished: Any):
    """The views hand texts on as they are: escaping is the page's affair, and done once."""
    rows = page_data.losses(finished)["queries"]
    assert sum(HOSTILE in row["text"] for row in rows) == 1
