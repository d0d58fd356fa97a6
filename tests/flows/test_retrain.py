"""The outer flow on a toy project: what runs, what a failure leaves, and how it appears in Prefect."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows import retrain
from flows.common import guard
from rabtriever.core.artifacts import content_hash
from rabtriever.ops import dvc_stages, inbox, notify, tracking
from rabtriever.ops.verdict import Verdict
from tests.toy import ROOT, alias, set_params


def run_plain() -> Verdict:
    """A retraining without Prefect."""
    return retrain.bring_up_to_date()


def test_stages_run_once_and_a_failure_harms_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prevents needless work when nothing changed, and a failure that takes good artefacts or the champion with it."""
    assert dvc_stages.stale_stages() == ["prepare", "index"]
    assert run_plain().outcome == "Promoted"
    opened: list[bool] = []
    repository = dvc_stages._repository
    with monkeypatch.context() as patch:
        patch.setattr(dvc_stages, "_repository", lambda: opened.append(True) or repository())
        retrain.run_once(None)
    printed = capfd.readouterr().out
    assert len(opened) == 1 and "nothing to do" in printed, "DVC is asked once"
    for expected in (
        "[2/2] index: done in",
        "== Evaluation ==",
        "== Results ==",
        "models:/rabtriever/1 ",
        "version 1 was promoted",
        "need 0",
        "make ui",
    ):
        assert expected in printed

    idle = run_plain()
    assert idle.outcome == "Nothing to do" and idle.decision["promoted"], "what was decided, and no run of it"

    before = content_hash("models/retriever")
    set_params("index", fail=True)
    assert dvc_stages.stale_stages() == ["index"]
    with pytest.raises(SystemExit) as exit_info, guard("retrain"):
        run_plain()
    error = capfd.readouterr().err
    assert exit_info.value.code == 1 and "expected 8; encode the corpus again" in error and "Traceback" not in error
    assert "retrain: stage 'index' failed" in error and "failed to reproduce" not in error
    assert content_hash("models/retriever") == before and alias("champion") == "1"
    runs = tracking.client().search_runs([tracking.client().get_experiment_by_name("rabtriever").experiment_id])
    assert [run.info.status for run in runs if run.info.run_name == "retrain"] == ["FAILED", "FINISHED"]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_leaves_nothing_for_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S10: prevents a checkout that cannot pull because a run has written what git tracks."""
    for name in (".gitignore", ".dvc/config", ".dvc/.gitignore", "mlruns/.gitignore"):
        shutil.copy(ROOT / name, name)
    record = Path("docs/evaluation/dvc.lock")
    record.parent.mkdir(parents=True)
    record.write_text("schema: '2.0'\n")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "first")
    clone = project / "reports/clone"  # where the first repository does not look
    git(project, "clone", "-q", str(project), str(clone))
    shutil.copy(project / "mlruns/mlflow.db", clone / "mlruns")

    monkeypatch.chdir(clone)
    assert run_plain().outcome == "Promoted" and Path("dvc.lock").is_file()
    assert git(clone, "status", "--porcelain") == ""

    (project / record).write_text("schema: '2.0'\nstages: {}\n")
    git(project, "commit", "-qam", "another record")
    git(clone, "pull", "-q")
    assert record.read_text() == (project / record).read_text()
    assert run_plain().outcome == "Nothing to do"


def test_misspelt_section_stops_before_any_stage(project: Path) -> None:
    """Prevents minutes of training before a setting nobody reads is noticed."""
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("index:", "indx:"))
    with pytest.raises(ValueError, match="did you mean 'index'"):
        run_plain()


def test_a_wrong_entry_stops_before_any_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents hours of training before the settings of the last stage are read."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("tests.toy index", "flows.build_index"))
    with pytest.raises(ValueError, match=r"unknown key index\.quality"):
        run_plain()


@pytest.mark.server
def test_one_tree_in_prefect(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Prevents stages that appear as unrelated runs, that start a server each, or that fail with pages of traceback."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        retrain.retrain()
        runs = {client.read_flow(run.flow_id).name: run for run in client.read_flow_runs()}
        assert set(runs) == {"retrain", "prepare", "index", "register"}
        states = {name: run.state_name for name, run in runs.items()}
        assert states == {"retrain": "Promoted"} | dict.fromkeys(("prepare", "index", "register"), "Completed")
        for stage in ("prepare", "index", "register"):
            assert client.read_task_run(runs[stage].parent_task_run_id).flow_run_id == runs["retrain"].id
        assert runs["index"].name == "index" and alias("champion") == "1"

        known = {run.id for run in runs.values()}
        set_params("index", fail=True)
        capfd.readouterr()
        with pytest.raises(SystemExit), guard("retrain"):
            retrain.retrain()
        error = capfd.readouterr().err
        assert "index: shard 3 has 7 vectors" in error and "Traceback" not in error
        states = [run.state_name for run in client.read_flow_runs() if run.id not in known]
        assert sorted(states) == ["Failed", "Failed"] and alias("champion") == "1"

        set_params("index", fail=False)
        assert retrain.retrain()["version"] == "1"
        set_params("index", quality=0.1)
        assert not retrain.retrain()["promoted"]
        (project / "incoming").mkdir()
        (project / "incoming/corpus.jsonl").write_text("no JSON\n")
        with pytest.raises(inbox.DataQuarantined):
            retrain.retrain(str(project / "incoming"))
        ends = sorted((run.end_time, run) for run in client.read_flow_runs() if run.flow_id == runs["retrain"].flow_id)
        named = [(run.state_name, run.state_type.value) for _, run in ends]
        assert named == [
            ("Promoted", "COMPLETED"),
            ("Failed", "FAILED"),
            ("Nothing to do", "COMPLETED"),
            ("Refused", "COMPLETED"),
            ("Data quarantined", "FAILED"),
        ]
        check_told(client, [run for _, run in ends])


def check_told(client: Any, ends: list[Any]) -> None:
    """S02: each run has one page and one line of log that name its end; the state says why."""
    for handler in logging.getLogger("prefect.flow_runs").handlers:
        handler.flush()
    pages = {page.flow_run_id: page for page in client.read_artifacts() if page.key == notify.ARTIFACT}
    logs = {log.flow_run_id: log for log in client.read_logs() if log.name == "prefect.flow_runs.verdict"}
    for run in ends:
        assert pages[run.id].data.startswith(f"## {run.state_name}\n")
        assert logs[run.id].message.startswith(f"{run.state_name}: ") and run.state.message
    assert "interval" in pages[ends[3].id].data and logs[ends[3].id].level == 30
