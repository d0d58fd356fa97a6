"""The view of cost: what is computed from runs, and what is extrapolated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rabtriever.server import page_cost


def test_reranked_takes_the_teachers_order_of_the_first_k_alone():
    """One document more or less in the teacher's hands is another system."""
    run = {"q": {"a": 4.0, "b": 3.0, "c": 2.0, "d": 1.0}}
    teacher = {"q": {"d": 9.0, "c": 8.0, "a": 1.0}}

    def order(k: int) -> list[str]:
        return list(page_cost.reranked(run, teacher, k)["q"])

    assert order(1) == ["a", "b", "c", "d"]
    assert order(3) == ["c", "a", "b", "d"]  # the teacher's run lacks b: it comes after those that it has
    assert order(4) == ["d", "c", "a", "b"]


def test_the_curve_begins_at_the_bi_encoder(finished: Any):
    """Of one document there is no other order."""
    found = page_cost.cost(finished)
    systems, curve = finished.evaluation["systems"], found["curve"]
    assert [point["k"] for point in curve] == [1, 2, 3, 5, 10, 20, 50, 100]
    assert curve[0]["quality"] == systems["biencoder"]["nDCG@10"]
    assert curve[0]["ms"] == pytest.approx(2.6 + 177 / 490, abs=1e-3)
    match = found["sizes"]["match"]
    assert next(point["k"] for point in curve if point["quality"] >= systems["student"]["nDCG@10"]) == match


def test_times_are_measured_at_the_runs_size_and_grow_from_there(finished: Any):
    """A line that misses the measured point extrapolates from nothing."""
    row = {"ms_per_query": 5.0, "bytes_per_document": 3000.0}
    assert page_cost.scan_ms(row, 490, 490) == 5.0
    assert page_cost.scan_ms(row, 0, 1_000_000) == pytest.approx(5 + 200)  # 3 GB at 15 GB a second
    sizes = page_cost.cost(finished)["sizes"]
    assert sizes["sizes"][0] == 100 and sizes["sizes"][-1] == 1_000_000
    here = sizes["sizes"].index(490)
    assert [sizes["ms"][name][here] for name in ("student", "biencoder", "teacher")] == [5.3, 2.6, 177.0]
    assert sizes["ms"]["teacher"][-1] == pytest.approx(177 / 490 * 1e6, rel=1e-6)


def test_a_pair_of_a_pool_costs_more_than_one_of_the_whole_corpus(finished: Any):
    """A teacher that read a pool took its time for fewer pairs."""
    scope = "the union of the first 2 documents of BM25, bi-encoder and student"
    pooled = replace(finished, evaluation={**finished.evaluation, "teacher_scope": scope})
    read = [
        len({d for name in ("bm25", "biencoder", "student") for d in list(finished.runs[name][q])[:2]})
        for q in finished.dataset.qrels["test"]
    ]
    assert page_cost.pair_ms(finished) == pytest.approx(177 / 490)
    assert page_cost.pair_ms(pooled) == pytest.approx(177 / (sum(read) / len(read)))


def test_a_bi_encoder_that_is_as_good_needs_no_teacher(finished: Any):
    """A depth of one would make the teacher look necessary."""
    systems = finished.evaluation["systems"]
    worse = {**systems, "student": {**systems["student"], "nDCG@10": systems["biencoder"]["nDCG@10"]}}
    found = page_cost.cost(replace(finished, evaluation={**finished.evaluation, "systems": worse}))
    assert found["sizes"]["match"] == 0
    assert found["sizes"]["ms"]["rerank"] == found["sizes"]["ms"]["biencoder"]


def test_where_the_student_pays():
    """The sizes that the title names."""
    size = page_cost.SIZES
    ours, theirs = [5.0] * len(size), [1.0, *[9.0] * (len(size) - 2), 1.0]
    assert page_cost._cheaper_range(size, ours, theirs) == [size[1], size[-2]]
    assert page_cost._cheaper_range(size, theirs, theirs) is None
    assert page_cost._first_cheaper(size, ours, theirs) == size[1]


def test_no_curve_without_the_teachers_run(finished: Any):
    """A run of another pipeline may lack it; the points are shown all the same."""
    found = page_cost.cost(
        replace(finished, runs={name: run for name, run in finished.runs.items() if name != "teacher"})
    )
    assert "runs of teacher" in found["missing"] and "student" in found["systems"] and "curve" not in found
