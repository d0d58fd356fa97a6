"""What a retraining prints at its end."""

from __future__ import annotations

import shutil
from pathlib import Path

from rabtriever.core.stages import Paths
from rabtriever.data.metrics import METRICS
from rabtriever.ops import registry, report
from tests.ops.test_tracking import register
from tests.toy import dataset, write_retriever


def test_table_has_fixed_columns() -> None:
    """Prevents a table that shifts with a missing or long value."""
    system = {"nDCG@10": 81.25, "MRR@10": 100.0, "R@1": 5, "R@3": 5, "R@10": 5, "R@100": 5, "S@1": 5}
    evaluation = {
        "dataset": "toy",
        "split": "test",
        "num_queries": 3,
        "num_documents": 9,
        "gap": {"mean": 4.04, "low": 2.5, "high": 5.5},
        "gap_closed": {"value": 97.4, "low": 80.0, "high": 115.2},
        "student_vs_biencoder": {"mean": 3.9, "low": 2.3, "high": 5.4},
        "systems": {
            "teacher": {**system, "ms_per_query": 1234.5, "ms_per_query_p95": None, "bytes_per_document": None},
            "bm25": {**system, "ms_per_query": 0.125, "ms_per_query_p95": 0.5, "bytes_per_document": 1024},
        },
        "timing": {"queries": 3, "others_cpu_percent": 3.0},
    }
    lines = report.evaluation_table(evaluation).splitlines()
    assert len({len(line) for line in lines[2:6]}) == 1
    assert lines[4].startswith("bm25") and lines[4].endswith("1,024") and lines[5].endswith("-")
    assert lines[4].split()[-3:] == ["0.12", "0.50", "1,024"] and lines[5].split()[-3:] == ["1234.50", "-", "-"]
    assert lines[-2:] == [
        "student - bi-encoder: +3.9 (+2.3 to +5.4) points of nDCG@10 (95 % interval)",
        "teacher - bi-encoder: +4.0 (+2.5 to +5.5); gap closed: 97 (80 to 115) %",
    ]
    evaluation["timing"]["others_cpu_percent"] = 60.0
    assert "other programs used 60 % of the processors" in report.evaluation_table(evaluation)


def test_a_share_of_a_gap_that_may_be_nothing_is_not_told() -> None:
    """Prevents "100 % of the gap" where the teacher is no better than the bi-encoder."""
    row = dict.fromkeys(METRICS, 33.1)
    evaluation = {
        **{"dataset": "toy", "split": "test", "num_queries": 3, "num_documents": 9},
        "gap": {"mean": 0.52, "low": -0.4, "high": 1.4},
        "gap_closed": None,
        "student_vs_biencoder": {"mean": -1.0, "low": -2.0, "high": 0.04},
        "systems": {"biencoder": row, "student": row, "teacher": row, "student_prior": row},
    }
    lines = report.evaluation_table(evaluation).splitlines()
    assert lines[-2:] == [
        "student - bi-encoder: -1.0 (-2.0 to +0.0) points of nDCG@10 (95 % interval)",
        "teacher - bi-encoder: +0.5 (-0.4 to +1.4): no significant gap for the student to close",
    ]
    assert [line.split()[0] for line in lines[4:8]] == ["biencoder", "student", "teacher", "student_prior"]


def test_a_teacher_that_training_made_worse_is_told() -> None:
    """Prevents a team from serving less than they started with, as the gate only compares with the champion."""
    rows = {"biencoder": dict.fromkeys(METRICS, 33.1), "teacher": dict.fromkeys(METRICS, 29.4)}
    facts = {"dataset": "toy", "split": "test", "num_queries": 3, "num_documents": 9}
    assert "(nDCG@10 29.4 and 33.1)" in report.evaluation_table({**facts, "systems": rows})
    rows["teacher"]["nDCG@10"] = 33.1
    assert "hard negatives" not in report.evaluation_table({**facts, "systems": rows})


def test_calibration_is_told_in_a_line() -> None:
    """Prevents probabilities that nobody has seen measured, and a crash for evaluations of earlier releases."""
    facts = {"dataset": "toy", "split": "test", "num_queries": 3, "num_documents": 9, "systems": {}}
    assert "calibration" not in report.evaluation_table(facts) + report.evaluation_table({**facts, "calibration": None})
    found = {"brier": 0.0342, "expected_calibration_error": 0.012, "threshold": 0.714, "wanted_precision": 0.9}
    last = report.evaluation_table({**facts, "calibration": {**found, "precision": 0.913, "answered": 0.8}})
    assert last.splitlines()[-1] == (
        "calibration: Brier score 0.034, error 0.012; from 0.71 on 91.3 % of hits are right (wanted 90 %), "
        "for 80.0 % of queries"
    )
    last = report.evaluation_table({**facts, "calibration": {**found, "precision": None, "answered": 0.0}})
    assert last.endswith("; no hit is above a threshold for the wanted precision of 90 %")


def test_files_that_the_report_names_are_there(store: Path) -> None:
    """O43. Prevents "all is well" beside a version that a search then finds without files."""
    version = register(0.5)
    assert "the retriever in the registry" in report.results_text(version, Paths())
    shutil.rmtree(registry.local_folder(version))
    text = report.results_text(version, Paths())
    (line,) = [line for line in text.splitlines() if "models:/rabtriever/1" in line]
    assert "  a version that has lost its files; if it is" in line and "flows.register" in line
    assert "models/retriever  " in text and "reports/" not in text
    write_retriever(registry.local_folder(register(0.9)), dataset(), 0.2)
    assert "a version that cannot be used: version 2 is not trusted" in report.results_text(registry.get("2"), Paths())
    shutil.rmtree("models/retriever")
    assert "models/retriever  " not in report.results_text(version, Paths())


def test_samples_cannot_steer_the_terminal() -> None:
    """O46. Prevents escape sequences and line breaks of queries and documents from reaching the terminal."""
    hit = {"score": 1.5, "grade": 1, "title": "Um\nbrella\x1b[31m", "text": "Keeps \x9b2J rain\u2028off"}
    text = report.samples_text([{"query": "rain\r\x1b]0;owned\x07", "hits": [hit]}])
    assert text == "rain �]0;owned�\n  1.    1.500 [1] Um brella�[31m: Keeps �2J rain off"
