"""The time that a run will take: from the last run, typical values, and the stages that are done."""

from pathlib import Path

import pytest
import yaml

from rabtriever.core.code import STAGE
from rabtriever.ops.estimate import TYPICAL, Estimate
from tests.closure import ROOT


def test_every_stage_has_a_typical_time():
    """The first run of all says that it takes less than it does."""
    assert {*TYPICAL, STAGE} == set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def test_a_first_run_goes_by_what_is_typical(tmp_path: Path):
    """A first run says that it takes no time, or fails at a stage of which nothing is known."""
    estimate = Estimate(["mine", "distill", "other"], tmp_path / "none.json")
    assert estimate.left() == TYPICAL["mine"].seconds + TYPICAL["distill"].seconds > 0 and not estimate.measured
    assert (estimate.phases("mine"), estimate.phases("other")) == (TYPICAL["mine"].phases, 0)


def test_what_the_last_run_took_is_known(tmp_path: Path):
    """A slow machine is told the times of a fast one for ever, or a stage that DVC skipped counts as its time."""
    history = tmp_path / "cache/seconds.json"
    first = Estimate(["prepare", "other"], history)
    first.finish("prepare", 42.0, 3, ran=True)
    first.finish("other", 5.0, 1, ran=True)
    skipped = Estimate(["prepare", "other"], history)
    skipped.finish("prepare", 0.1, 0, ran=False)
    again = Estimate(["prepare", "other"], history)
    assert again.left() == 47.0 and again.measured and again.phases("prepare") == 3


def test_finished_stages_correct_the_rest(tmp_path: Path):
    """A machine of half the speed is told the wrong time until the end (by hand: 20 s became 40 s, so 30 become 60)."""
    history = tmp_path / "seconds.json"
    for stage, seconds in (("a", 20.0), ("b", 30.0), ("c", 50.0)):
        Estimate([stage], history).finish(stage, seconds, 1, ran=True)
    estimate = Estimate(["a", "b", "c"], history)
    assert estimate.left(elapsed=5.0) == 95.0
    assert estimate.left(elapsed=500.0) == 80.0, "a stage that takes longer than expected owes nothing"
    assert estimate.left(elapsed=500.0, phase_left=7.0) == 87.0, "but what it says itself"
    estimate.finish("a", 40.0, 1, ran=True)
    assert estimate.left() == 60.0 + 100.0
    estimate.finish("b", 60.0, 1, ran=True)
    estimate.finish("c", 100.0, 1, ran=True)
    assert estimate.left() == 0.0


@pytest.mark.parametrize("content", ["", "[1]", '{"prepare": 3}', '{"prepare": ["x", 1]}'])
def test_a_damaged_history_is_none(tmp_path: Path, content: str):
    """A file that only estimates stops the training."""
    (tmp_path / "seconds.json").write_text(content)
    assert Estimate(["prepare"], tmp_path / "seconds.json").left() == TYPICAL["prepare"].seconds
