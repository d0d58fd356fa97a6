"""The ablations of the old study as one summary."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.artifacts import read_json, write_json
from research.mechanisms import main, summarise
from tests.closure import ROOT

ARCHIVE = ROOT / "research/archive-0.1/results"


def write(folder: Path, seed: int, base: list[float], ablation: list[float], **changes: Any) -> None:
    """One ablation of one seed in the old format."""
    info = {"set": "toy", "seed": seed, "ablation": "no_reader", "device": "abacus", "spent": 900.0}
    content = {"info": info, "queries": ["a", "b"], "per_query": {"student": ablation}, "start": {"student": base}}
    write_json(folder / f"toy-{seed}/ablations/no_reader.json", {**content, **changes})


def test_the_difference_is_base_less_ablation(tmp_path: Path):
    """A mechanism that helps would be deleted, or the intervals would count seeds as queries."""
    write(tmp_path, 7, [0.5, 0.9], [0.4, 0.9])
    write(tmp_path, 8, [0.7, 0.9], [0.4, 0.7])
    found = summarise(tmp_path)
    row = found["sets"]["toy"]["no_reader"]
    assert row["seeds"] == [7, 8] and "teacher" not in row
    assert row["student"] == {"base": 75.0, "nDCG@10": 60.0, "difference": 15.0, "low": 10.0, "high": 20.0}
    assert (found["device"], found["hours"]) == ("abacus", 0.5)


def test_the_archive_gives_its_published_figures(tmp_path: Path):
    """The old format is read otherwise than the old study read it."""
    for trial in ("household-7", "household-8", "household-9"):
        (tmp_path / trial / "ablations").mkdir(parents=True)
        shutil.copy(ARCHIVE / f"cpu/{trial}/ablations/off_policy.json", tmp_path / trial / "ablations")
    row = summarise(tmp_path)["sets"]["household"]["off_policy"]["student"]
    known = read_json(ARCHIVE / "cpu.json")["details"]["ablations"]["household"]["off_policy"]["systems"]["student"]
    assert row["difference"] == pytest.approx(-known["difference"], abs=0.011)
    assert (row["low"], row["high"]) == pytest.approx((-known["high"], -known["low"]), abs=0.1)


def test_what_cannot_be_summarised_is_told(tmp_path: Path, capsys: pytest.CaptureFixture):
    """A wrong folder gives an empty summary, or different queries a wrong one."""
    target = tmp_path / "summary.json"
    assert main([str(tmp_path), "--target", str(target)]) == 1 and not target.exists()
    assert "has no file SET-SEED/ablations/NAME.json" in capsys.readouterr().err
    write(tmp_path, 7, [0.5, 0.9], [0.4, 0.9])
    write(tmp_path, 8, [0.5, 0.9], [0.4, 0.9], queries=["a", "c"])
    assert main([str(tmp_path), "--target", str(target)]) == 1
    assert "toy, no_reader: the seeds have other queries" in capsys.readouterr().err
    write(tmp_path, 8, [0.5, 0.9], [0.4, 0.9])
    assert main([str(tmp_path), "--target", str(target)]) == 0
    assert read_json(target)["sets"]["toy"]["no_reader"]["student"]["difference"] == 5.0
