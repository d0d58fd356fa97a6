"""The gap between bi-encoder and teacher, and the share of it that the student closes."""

import warnings

import pytest

from rabtriever.evaluation.gap import Share, gap, gap_closed, gap_report


def by_query(*values: float) -> dict[str, float]:
    return {f"q{number:02}": value for number, value in enumerate(values)}


BIENCODER = by_query(10, 20, 30, 40)
TEACHER = by_query(30, 30, 50, 60)  # ahead by 20, 10, 20 and 20
STUDENT = by_query(20, 30, 40, 45)  # by 10, 10, 10 and 5


def test_gap_by_hand():
    """The sides change places, or the interval is of something else than the mean difference."""
    found = gap(TEACHER, BIENCODER)
    assert found.mean == 17.5
    assert 10 <= found.low < 17.5 < found.high == 20, "no resample has a mean below 10, many have one of 20"


def test_gap_closed_by_hand():
    """The share is of the student's own score, or a mean of shares: half of the queries would count alike."""
    found = gap_closed(STUDENT, TEACHER, BIENCODER)
    assert found.value == pytest.approx(50.0)  # 8.75 of 17.5; the mean of the shares is 56
    assert 25 <= found.low < 50 < found.high <= 100


def test_interval_by_hand():
    """Student and teacher are resampled apart, which makes the interval too wide."""
    found = gap_closed(by_query(10, 0), by_query(10, 20), by_query(0, 0))
    # a quarter of the resamples has the first query twice, a quarter the second, half have both
    assert found == pytest.approx(Share(100 / 3, 0.0, 100.0))
    always = gap_closed(by_query(5, 10, 1), by_query(10, 20, 2), by_query(0, 0, 0))
    assert always == pytest.approx(Share(50.0, 50.0, 50.0)), "half of each query's lead is half of every resample's"


def test_a_student_may_be_outside_of_the_gap():
    """A student that is better than the teacher, or worse than the bi-encoder, passes for one that is neither."""
    assert gap_closed(by_query(15, 30), by_query(10, 20), by_query(0, 0)).value == pytest.approx(150.0)
    assert gap_closed(by_query(5, 5), by_query(20, 20), by_query(10, 10)).value == pytest.approx(-50.0)


@pytest.mark.parametrize("teacher", [(10, 20, 30, 40), (50, 0, 30, 40), (0, 0, 0, 0)])
def test_no_share_of_a_gap_that_is_not_significant(teacher):
    """A share of what may be nothing is reported as if it meant something."""
    assert gap_closed(STUDENT, by_query(*teacher), BIENCODER) is None


def test_resamples_without_a_lead_have_no_share():
    """Zero of zero points makes the interval NaN, which no JSON file can hold."""
    lead = [10.0] * 4 + [0.0] * 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = gap_closed(by_query(*(one / 2 for one in lead)), by_query(*lead), by_query(*[0.0] * 12))
    assert found == pytest.approx(Share(50.0, 50.0, 50.0))


def test_sides_of_other_queries_are_refused():
    """Means over other queries are subtracted."""
    with pytest.raises(ValueError, match="student has 3 queries, teacher 4; expected the same"):
        gap_closed(by_query(1, 2, 3), TEACHER, BIENCODER)
    with pytest.raises(ValueError, match="expected the same queries"):
        gap(by_query(1, 2, 3), BIENCODER)


def table(**systems: dict[str, float]) -> dict[str, dict[str, dict[str, float]]]:
    return {
        name: {query: {"nDCG@10": value / 100, "R@1": 0.0} for query, value in values.items()}
        for name, values in systems.items()
    }


def test_report_is_in_points_and_rounded():
    """Shares of 1 stand where points are told, or figures have digits that mean nothing."""
    found = gap_report(table(student=STUDENT, teacher=TEACHER, biencoder=BIENCODER, bm25=BIENCODER))
    assert found["metric"] == "nDCG@10" and set(found) == {"metric", "gap", "gap_closed", "student_vs_biencoder"}
    assert (found["gap"]["mean"], found["gap"]["high"]) == (17.5, 20.0)
    assert found["gap_closed"]["value"] == 50.0 and set(found["gap_closed"]) == {"value", "low", "high"}
    assert found["student_vs_biencoder"]["mean"] == 8.75 and found["student_vs_biencoder"]["high"] == 10.0
    thirds = gap_report(table(student=by_query(1, 0, 0), teacher=by_query(1, 1, 1), biencoder=by_query(0, 0, 0)))
    assert thirds["gap_closed"] == {"value": 33.33, "low": 0.0, "high": 100.0}
    assert thirds["gap"] == {"mean": 1.0, "low": 1.0, "high": 1.0}


def test_report_without_a_gap():
    """A report without a significant gap ends the stage, or lacks the entry that says so."""
    found = gap_report(table(student=STUDENT, teacher=BIENCODER, biencoder=BIENCODER))
    assert found["gap_closed"] is None and found["gap"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert gap_report(table(student=STUDENT, teacher=TEACHER, biencoder=BIENCODER), "R@1")["gap_closed"] is None
