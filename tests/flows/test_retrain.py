"""The outer flow on a toy project: what runs, what is promoted, what survives a failure or an interrupt."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from prefect import flow

from flows import retrain
from flows.common import guard, main
from flows.register import register
from rabtriever.core.artifacts import ArtifactMismatchError, content_hash
from rabtriever.data.metrics import METRICS
from rabtriever.ops import dvc_stages, gate, registry, report, tracking
from tests.toy import ToyRetriever, alive, build, dataset, set_params, wait_for, write_retriever


def run_plain() -> dict[str, Any]:
    """A retraining without Prefect."""
    return retrain.retrain.fn()


def run_gate(quality: float, prefix: str = "need") -> dict[str, Any]:
    """Registration and gate for a retriever of this quality, as if the stages had just made it."""
    build(quality, prefix)
    return retrain._refresh([])


def alias(name: str) -> str | None:
    """The version an alias points to."""
    version = registry.get(name)
    return version and version.version


def num_versions() -> int:
    """How many versions the model has."""
    return len(tracking.client().search_model_versions(f"name = '{registry.MODEL}'"))


def test_life_of_a_champion(project: Path) -> None:
    """Prevents promotion without comparison, repeated decisions, and a rollback that the next run undoes."""
    first = run_gate(0.5)
    assert first["promoted"] and first["champion"] is None and alias("champion") == "1"
    assert json.loads(Path("reports/promotion.json").read_text())["reason"] == first["reason"]

    worse = run_gate(0.2)
    assert not worse["promoted"] and worse["interval"]["high"] < 0
    assert alias("champion") == "1" and registry.get("2").tags["verdict"] == "refused"

    better = run_gate(0.9)
    assert better["promoted"] and better["champion"] == "1" and better["interval"]["low"] > 0
    assert (alias("champion"), alias("previous")) == ("3", "1")
    assert run_gate(0.9) == better and num_versions() == 3

    registry.rollback()
    assert (alias("champion"), alias("previous")) == ("1", "3")
    assert run_gate(0.9) == better and alias("champion") == "1"

    registry.rollback(to="2")  # version 3 was never judged against this one, and stays out all the same
    assert run_gate(0.9) == better and alias("champion") == "2"
    assert "rollback --to 3` puts it back" in report.promotion_text(registry.get("3"), better)
    registry.rollback(to="3")
    assert [registry.is_withdrawn(registry.get(number)) for number in "123"] == [True, True, False]

    assert run_gate(0.95)["promoted"] and alias("champion") == "4"
    registry.rollback(to="2")  # taken out before and put back for another one: that one stays out too
    run_gate(0.95)
    assert alias("champion") == "2"
    registry.rollback()  # this undoes it, and marks nothing
    assert alias("champion") == "4" and not registry.is_withdrawn(registry.get("2"))


def test_refused_version_is_heard_again_under_other_limits(project: Path) -> None:
    """Prevents a refusal that outlives the limits it was made under, and one that is repeated for nothing."""
    set_params("promote", min_ndcg_10=99.0)
    refused = run_gate(0.5)
    assert not refused["promoted"] and alias("champion") is None
    assert run_gate(0.5)["decided_at"] == refused["decided_at"]
    set_params("promote", min_ndcg_10=10.0)
    assert run_gate(0.5)["promoted"] and alias("champion") == "1"


def test_other_data_meets_the_champion_on_the_new_test_set(project: Path) -> None:
    """Prevents comparing metrics of two different test sets, and a champion kept for data it was not made for."""
    stored = run_gate(0.9)["ndcg_10"]
    decision = run_gate(0.5, prefix="wish")
    # the champion knows none of the new queries, whatever it scored on its own
    assert decision["champion_ndcg_10"] < decision["ndcg_10"] < stored
    assert decision["promoted"] and alias("previous") == "1"
    assert run_gate(0.9)["champion"] == "2" and alias("champion") == "1"


def test_figures_of_another_retriever_are_refused(project: Path) -> None:
    """Prevents a retriever that is registered with the metrics of the one before, and judged by them."""
    build(0.5)
    write_retriever("models/retriever", dataset(), 0.9)
    with pytest.raises(ArtifactMismatchError, match="evaluate this one first"):
        register.fn()
    assert num_versions() == 0


def test_damaged_artefact_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents promoting a version that cannot be served."""
    check = registry.check_answers

    def damage_then_check(version: registry.RegisteredVersion) -> None:
        (registry.local_folder(version) / "best.json").write_text("{}")
        check(version)

    with monkeypatch.context() as patched:
        patched.setattr(registry, "check_answers", damage_then_check)
        decision = run_gate(0.5)
    assert not decision["promoted"] and "best.json" in decision["reason"] and alias("champion") is None
    again = run_gate(0.5)  # the same version is asked again, and registered anew as it advises
    assert not again["promoted"] and "best.json" in again["fault"]
    register.fn()
    assert run_gate(0.5)["promoted"] and alias("champion") == "2"


def test_a_store_out_of_reach_refuses_nobody_for_good(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a better retriever that is never heard again because the network failed when it was asked."""

    def broken(folder: Path, query: str, k: int) -> None:
        raise ConnectionResetError("the store is gone")

    with monkeypatch.context() as patched:
        patched.setattr(registry, "_ask", broken)
        assert "the store is gone" in run_gate(0.5)["fault"] and alias("champion") is None
    assert run_gate(0.5)["promoted"] and num_versions() == 1


def test_other_code_or_metrics_make_another_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a champion that serves a fault mended long ago, and figures of another measure beside the new ones."""
    run_gate(0.5)
    register.fn()
    assert num_versions() == 1
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_code_here", lambda: "mended")
        patched.setattr(registry, "check_answers", lambda version: None)
        assert not gate.settled(gate.challenger())
        assert run_gate(0.5)["promoted"] and alias("champion") == "2", "also where DVC has nothing to run"
        registry.rollback(to="1")
        Path("reports/runs/student.trec").write_text("")  # as if it were measured otherwise
        register.fn()
        assert num_versions() == 3 and registry.is_withdrawn(registry.get("3")), "the retriever is out of service"
        run_gate(0.5)
        assert alias("champion") == "1"


def test_code_that_is_taken_back_serves_again(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a change of the code from staying in service after it was taken back, or a version more each time."""
    run_gate(0.5)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "_code_here", lambda: "worse")
        patched.setattr(registry, "check_answers", lambda version: None)
        run_gate(0.5)
        assert alias("champion") == "2"
    print(report.promotion_text(gate.challenger(), None))
    assert "champion: version 2, the same retriever with other code" in capsys.readouterr().out
    assert run_gate(0.5)["promoted"] and alias("champion") == "1" and num_versions() == 2
    register.fn()
    assert num_versions() == 2


def test_a_run_killed_before_the_promotion_is_completed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a decision without a champion of it, and a champion of which nothing tells why it is one."""
    with monkeypatch.context() as patched:
        patched.setattr(registry, "promote", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_gate(0.5)
    assert alias("champion") is None and not gate.settled(gate.challenger())
    assert run_gate(0.5)["promoted"] and alias("champion") == "1" and gate.settled(gate.challenger())
    run_gate(0.9)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "promote", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            registry.rollback()
    assert registry.rollback()[0].version == "1"
    run_gate(0.9)
    assert alias("champion") == "1", "what was rolled back stays out of service"


def test_the_same_weights_that_rank_worse_are_refused(project: Path) -> None:
    """Prevents a fault of the serving code from going into service as the equal of the champion with these weights."""
    run_gate(0.9)
    Path("reports/runs/student.trec").write_text("")  # as it is measured with such a fault
    register.fn()
    decision = retrain._refresh([])
    assert decision["champion_ndcg_10"] > decision["ndcg_10"] == 0.0
    assert not decision["promoted"] and alias("champion") == "1" and registry.get("2").tags["verdict"] == "refused"


def test_a_champion_that_lost_its_files(project: Path) -> None:
    """Prevents a registry that nothing but an unmentioned command can mend."""
    run_gate(0.5)
    shutil.rmtree("mlruns/artifacts")
    with pytest.raises(FileNotFoundError, match="champion, version 1, has lost its files.*rollback --to N"):
        run_gate(0.9)
    build(0.5)
    register.fn()
    assert retrain._refresh([])["promoted"] and alias("champion") == "3"


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


@pytest.mark.parametrize("error", [None, KeyError, RuntimeError, OutOfMemoryError])
def test_a_champion_that_cannot_be_evaluated(project: Path, monkeypatch: pytest.MonkeyPatch, error: Any) -> None:
    """Prevents new data from putting a challenger into service that was never compared with the champion."""
    before = run_gate(0.9)
    if error is None:
        (registry.local_folder(registry.get("1")) / "best.json").write_text("{}")
    else:
        monkeypatch.setattr(ToyRetriever, "reindexed", Mock(side_effect=error("of another age")))
    with pytest.raises((ArtifactMismatchError, OutOfMemoryError)) as raised:
        run_gate(0.5, prefix="wish")
    told = "champion, version 1, cannot be evaluated" in str(raised.value) and "rollback" in str(raised.value)
    assert told == (error is not OutOfMemoryError), "a full GPU is no fault of the champion's"
    assert alias("champion") == "1" and registry.last_decision(registry.get("2")) is None
    assert json.loads(Path("reports/promotion.json").read_text()) == before


def test_a_champion_of_meanwhile_is_not_replaced(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a shared registry from losing a champion that the challenger was never compared with."""
    run_gate(0.5)
    run_gate(0.2)
    decide = gate.decide

    def slowly(*arguments: Any) -> Any:
        registry.promote(registry.get("2"))
        return decide(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(gate, "decide", slowly)
        with pytest.raises(BlockingIOError, match="version 2 while version 3 was judged"):
            run_gate(0.9)
    assert alias("champion") == "2"
    assert run_gate(0.9)["champion"] == "2" and alias("champion") == "3"


def test_lost_registry_is_filled_again(project: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a pipeline that is up to date for DVC and has no model for MLflow, as after a fresh clone and pull."""
    run_gate(0.5)
    shutil.rmtree("mlruns/artifacts")
    with pytest.raises(FileNotFoundError, match=r"flows\.register"):
        registry.local_folder(registry.get("1"))
    shutil.copy(store_template, "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/other.db")
    assert run_gate(0.5)["promoted"] and alias("champion") == "1"


def test_stages_run_once_and_a_failure_harms_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prevents needless work when nothing changed, and a failure that takes good artefacts or the champion with it."""
    assert dvc_stages.stale_stages() == ["prepare", "index"]
    assert run_plain()["promoted"]
    asked: list[str] = []
    ask = dvc_stages._ask
    with monkeypatch.context() as patch:
        patch.setattr(dvc_stages, "_ask", lambda *words: asked.append(words[0]) or ask(*words))
        retrain.run_once(None)
    printed = capfd.readouterr().out
    assert asked == ["status"] and "nothing to do" in printed
    for expected in (
        "== Evaluation ==",
        "version 1 was promoted",
        "need 0",
        "make ui",
    ):
        assert expected in printed

    assert run_plain()["promoted"], "a schedule with nothing to do: what was decided, and no run of it"

    before = content_hash("models/retriever")
    set_params("index", fail=True)
    assert dvc_stages.stale_stages() == ["index"]
    with pytest.raises(SystemExit) as exit_info, guard("retrain"):
        run_plain()
    error = capfd.readouterr().err
    assert exit_info.value.code == 1 and "expected 8; encode the corpus again" in error and "Traceback" not in error
    assert "retrain: stage 'index' failed" in error
    assert content_hash("models/retriever") == before and alias("champion") == "1"
    runs = tracking.client().search_runs([tracking.client().get_experiment_by_name("rabtriever").experiment_id])
    assert [run.info.status for run in runs if run.info.run_name == "retrain"] == ["FAILED", "FINISHED"]


def test_graph_is_read_in_order() -> None:
    """Prevents running a stage before the one it reads from, and skipping what follows from a change."""
    dot = 'strict digraph {\n"mine@0";\n"prepare";\n"mine@0" -> "distill@0";\n"prepare" -> "mine@0";\n"other";\n}'
    parents = {"prepare": set(), "mine@0": {"prepare"}, "distill@0": {"mine@0"}, "other": set()}
    assert dvc_stages._graph(dot) == parents
    assert dvc_stages._affected(parents, {"mine@0"}) == ["mine@0", "distill@0"]


def started(program: str) -> subprocess.Popen[bytes]:
    """A process of a program that runs the stage `index`, once that stage is at work."""
    set_params("index", wait=60)
    build(0.5)
    prepared = (  # a test run in the background of a shell inherits that SIGINT is ignored
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from rabtriever.ops import dvc_stages\nfrom flows.common import guard\n"
    )
    child = subprocess.Popen([sys.executable, "-c", prepared + program])
    wait_for(lambda: Path("started").exists(), 30)
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_stage_and_its_children(project: Path, number: int) -> None:
    """Prevents orphaned training processes that go on writing after the user has stopped the run."""
    child = started("with guard('retrain'), dvc_stages.exclusive():\n    dvc_stages.run_stage('index', {})")
    with pytest.raises(BlockingIOError, match=f"process {child.pid}"), dvc_stages.exclusive():
        pass  # a second retraining in the same folder is told of the first
    child.send_signal(number)
    assert child.wait(30) == 128 + number
    group = int(Path("started").read_text())
    wait_for(lambda: not alive(group), 10)


def test_a_second_interrupt_does_not_stop_the_clean_up(project: Path) -> None:
    """Prevents an impatient second Ctrl-C from leaving a stage running, or its last good outputs in the cache."""
    child = started(
        "import time\nfrom pathlib import Path\n"
        "def restore(stage):\n    Path('restoring').touch()\n    time.sleep(1)\n    Path('restored').touch()\n"
        "_pipeline._restore = restore\n"
        "with guard('retrain'):\n    dvc_stages.run_stage('index', {})"
    )
    child.send_signal(signal.SIGINT)
    wait_for(lambda: Path("restoring").exists(), 30)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child.send_signal(number)
    assert child.wait(30) == 130 and Path("restored").exists()


@pytest.mark.parametrize("edited", ["setting", "code"])
def test_what_changes_while_a_stage_runs_is_not_what_it_is_made_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edited: str
) -> None:
    """Prevents a model of the old settings or code in DVC's lock and cache as one of the new."""
    Path("stage.py").write_text("first")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("[raw.txt]", "[raw.txt, stage.py]"))

    def stage() -> None:
        if edited == "code":
            Path("stage.py").write_text("second")
        set_params("promote", tolerance=2.0)  # which this stage does not read
        set_params("prepare", dev_fraction=0.2 if edited == "setting" else 0.1)

    monkeypatch.setenv("DVC_STAGE", "prepare")
    with pytest.raises(SystemExit) as found:
        main(flow(name="prepare")(stage))
    told = {"code": "prepare: stage.py changed while", "setting": "prepare: prepare in params.yaml changed while"}
    assert found.value.code == 1 and told[edited] in capsys.readouterr().err
    main(flow(name="prepare")(lambda: set_params("promote", tolerance=1.0)))


def test_bad_data_folder_leaves_settings_alone(project: Path) -> None:
    """Prevents a params.yaml that points at data nobody can use."""
    before = Path("params.yaml").read_text()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        retrain.adopt_source("nowhere")
    bad = Path("bad/qrels")
    bad.mkdir(parents=True)
    (bad.parent / "corpus.jsonl").write_text('{"_id": "d1", "text": "a"}\n{"_id": "d1", "text": "b"}\n')
    (bad.parent / "queries.jsonl").write_text('{"_id": "q1", "text": "x"}\n')
    for split in ("train", "test"):
        (bad / f"{split}.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    with pytest.raises(ValueError, match=r"corpus\.jsonl:2.*d1"):
        retrain.adopt_source("bad")
    with pytest.raises(ValueError, match="data/prepared is what stage prepare writes"):
        retrain.adopt_source("data/prepared")
    assert Path("params.yaml").read_text() == before


def test_misspelt_section_stops_before_any_stage(project: Path) -> None:
    """Prevents minutes of training before a setting nobody reads is noticed."""
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("index:", "indx:"))
    with pytest.raises(ValueError, match="did you mean 'index'"):
        run_plain()


@pytest.mark.parametrize(
    ("rounds", "final"),
    [
        ("[{number: 0, start: models/teacher/manifest.json}, {number: 1, start: models/student/0}]", 0),
        ("[{number: 0, start: models/teacher/manifest.json}, {number: 1, start: models/teacher/manifest.json}]", 1),
        ("[{number: 1, start: models/student/0}]", 1),
        ("[]", -1),
        ("null", "many"),
    ],
)
def test_rounds_that_do_not_follow_each_other_stop_it(project: Path, rounds: str, final: Any) -> None:
    """Prevents an older student that is served, or a round that is trained for nothing."""
    with open("params.yaml", "a") as file:
        file.write(f"\nrounds: {rounds}\nfinal_round: {final}\n")
    with pytest.raises(ValueError, match=r"rounds is .*expected a line for each round up to final_round.*number: 0"):
        run_plain()


def test_a_wrong_entry_stops_before_any_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents hours of training before the settings of the last stage are read."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("tests.toy index", "flows.build_index --round 0"))
    with pytest.raises(ValueError, match=r"unknown key index\.quality"):
        run_plain()


def test_table_has_fixed_columns() -> None:
    """Prevents a table that shifts with a missing or long value."""
    system = {"nDCG@10": 81.25, "MRR@10": 100.0, "R@1": 5, "R@3": 5, "R@10": 5, "R@100": 5, "S@1": 5}
    evaluation = {
        "dataset": "toy",
        "split": "test",
        "num_queries": 3,
        "num_documents": 9,
        "retention": 97.5,
        "systems": {
            "teacher": {**system, "ms_per_query": 1234.5, "bytes_per_document": None},
            "bm25": {**system, "ms_per_query": 0.125, "bytes_per_document": 1024},
        },
    }
    lines = report.evaluation_table(evaluation).splitlines()
    assert len({len(line) for line in lines[2:6]}) == 1
    assert lines[4].startswith("bm25") and lines[4].endswith("1,024") and lines[5].endswith("-")
    assert "97.5 %" in lines[-1]


def test_a_teacher_that_training_made_worse_is_told() -> None:
    """Prevents a team from serving less than they started with, as the gate only compares with the champion."""
    rows = {"biencoder": dict.fromkeys(METRICS, 33.1), "teacher": dict.fromkeys(METRICS, 29.4)}
    facts = {"dataset": "toy", "split": "test", "num_queries": 3, "num_documents": 9}
    assert "(nDCG@10 29.4 and 33.1)" in report.evaluation_table({**facts, "systems": rows})
    rows["teacher"]["nDCG@10"] = 33.1
    assert "hard negatives" not in report.evaluation_table({**facts, "systems": rows})


@pytest.mark.server
def test_one_tree_in_prefect(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Prevents stages that appear as unrelated runs, that start a server each, or that fail with pages of traceback."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        retrain.retrain()
        runs = {client.read_flow(run.flow_id).name: run for run in client.read_flow_runs()}
        assert set(runs) == {"retrain", "prepare", "index", "register"}
        assert {run.state_name for run in runs.values()} == {"Completed"}
        for stage in ("prepare", "index", "register"):
            assert client.read_task_run(runs[stage].parent_task_run_id).flow_run_id == runs["retrain"].id
        assert runs["index"].name == "index" and alias("champion") == "1"

        set_params("index", fail=True)
        capfd.readouterr()
        with pytest.raises(SystemExit), guard("retrain"):
            retrain.retrain()
        error = capfd.readouterr().err
        assert "index: shard 3 has 7 vectors" in error and "Traceback" not in error
        states = [run.state_name for run in client.read_flow_runs() if run.id not in {old.id for old in runs.values()}]
        assert sorted(states) == ["Failed", "Failed"] and alias("champion") == "1"
