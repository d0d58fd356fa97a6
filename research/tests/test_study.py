"""Running a study: which trials are run, what is kept of them, and what a failure leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from rabtriever.core.artifacts import read_json
from rabtriever.core.settings import ParamsError
from research import trial as trial_module
from research.definition import Study, Trial
from research.study import finished, main
from research.tests.conftest import TOY
from research.trial import variant


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials that were run; `two` fails while its seed is in here as a text."""
    found: list[str] = []

    def run(study: Study, trial: Trial) -> dict[str, Any]:
        found.append(str(trial))
        if "fail" in found and trial.set == "two":
            raise FloatingPointError("loss is nan")
        systems = {name: {"ms_per_query": 1.0} for name in study.systems}
        values = {name: {"nDCG@10": [0.5, 1.0]} for name in study.systems}
        facts = {"seed": trial.seed, "profile": study.sets[trial.set].profile, "device": "abacus", "num_documents": 3}
        given = {"seconds": {"mine": 60.0}, "queries": ["a", "b"], "settings": study.conditions(trial)}
        return {**facts, **given, "systems": systems, "per_query": values}

    monkeypatch.setattr(trial_module, "run_trial", run)
    return found


def test_a_finished_trial_is_not_run_again(root: Path, ran: list[str]):
    """A study that is started again measures for hours what it has."""
    assert main(["toy"], root) == 0 and ran == ["one-7", "two-9", "one-8"]
    assert main(["toy"], root) == 0 and len(ran) == 3
    summary = read_json(root / "research/results/toy/summary.json")
    assert summary["sets"]["one"]["seeds"] == [7, 8] and summary["command"] == "make study STUDY=toy"


def test_a_changed_setting_makes_a_trial_unfinished(root: Path, study: Study, ran: list[str]):
    """Figures of other settings than the file has would be published as theirs."""
    main(["toy"], root)
    content = yaml.safe_load(yaml.safe_dump(TOY))
    content["sets"]["two"]["settings"]["distill.steps"] = 5
    (root / "research/studies/toy.yaml").write_text(yaml.safe_dump(content))
    assert main(["toy"], root) == 0 and ran[3:] == ["two-9"]
    assert finished(study, Trial("two", 9)) is None, "the old definition does not take the new trial for its own"
    assert finished(study, Trial("one", 7))["seed"] == 7


def test_a_trial_that_fails_does_not_stop_the_others(root: Path, ran: list[str], capsys: pytest.CaptureFixture):
    """One set without memory ends a night of measurements, or its lack goes unnoticed."""
    ran.append("fail")
    assert main(["toy"], root) == 1 and ran[1:] == ["one-7", "two-9", "one-8"]
    assert "two-9: failed" in capsys.readouterr().out
    assert list(read_json(root / "research/results/toy/summary.json")["sets"]) == ["one"]
    ran.remove("fail")
    assert main(["toy"], root) == 0 and ran[3:] == ["two-9"]


def test_a_set_that_is_not_there_is_named_and_left_out(root: Path, ran: list[str], capsys: pytest.CaptureFixture):
    """A study ends at the first set that a user has no licence for."""
    shutil.rmtree(root / "data/two")
    assert main(["toy"], root) == 0 and ran == ["one-7", "one-8"]
    out = capsys.readouterr().out
    assert "two-9: left out, there is no folder" in out and "2 of 3 trials are finished" in out


def test_sets_are_chosen_by_name(root: Path, ran: list[str], capsys: pytest.CaptureFixture):
    """A mistyped set would end a study without having run anything."""
    assert main(["toy", "--only", "two"], root) == 0 and ran == ["two-9"]
    assert main(["toy", "--only", "tow"], root) == 1 and "no set 'tow', expected of one, two" in capsys.readouterr().err


def test_the_summary_alone_runs_nothing(root: Path, ran: list[str]):
    """Looking at what a study has would start hours of work."""
    main(["toy", "--only", "two"], root)
    shutil.rmtree(root / "data/one")
    (root / "research/results/toy/summary.json").unlink()
    assert main(["toy", "--summary-only"], root) == 0 and ran == ["two-9"]
    assert list(read_json(root / "research/results/toy/summary.json")["sets"]) == ["two"]


def test_two_processes_do_not_share_a_study(root: Path, study: Study, ran: list[str], capsys: pytest.CaptureFixture):
    """Two runs would write into each other's workspaces."""
    study.work.mkdir(parents=True)
    with FileLock(study.work / ".lock"):
        assert main(["toy"], root) == 1
    assert ran == [] and "another process is running toy" in capsys.readouterr().err


def test_a_system_is_a_function_or_settings():
    """A row is measured as another system than its name says, or with the default's settings."""
    settings = {"mine": {"depth": 12}}
    assert variant("teacher", {}, settings) == ("teacher", settings)
    assert variant("shallow", {"mine.depth": 0}, settings) == ("student", {"mine": {"depth": 0}})
    assert variant("read", {"mine.depth": 0, "measured_as": "teacher"}, settings)[0] == "teacher"
    with pytest.raises(ParamsError, match="system 'techer' is measured as 'techer', expected one of bm25"):
        variant("techer", {}, settings)
    with pytest.raises(ParamsError, match="did you mean 'mine.depth'"):
        variant("shallow", {"mine.dept": 0}, settings)
