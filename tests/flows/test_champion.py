"""What the gate makes of each retriever of a toy project: who is promoted, refused, heard again, put back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from flows import retrain
from flows.register import register
from rabtriever.core.artifacts import ArtifactMismatchError, read_json, write_json
from rabtriever.ops import gate, registry, report, tracking, verify
from rabtriever.ops.answering import FORMAT_TAG
from tests.toy import ToyRetriever, alias, build, dataset, measured, set_params, write_retriever


def run_gate(quality: float, prefix: str = "need") -> dict[str, Any]:
    """Registration and gate for a retriever of this quality, as if the stages had just made it."""
    build(quality, prefix)
    return dict(retrain._refresh([]).decision)


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


def test_other_data_meets_the_champion_on_the_new_dev_queries(project: Path) -> None:
    """Prevents comparing metrics of two different sets of queries, and a champion kept for data it was not made for."""
    stored = run_gate(0.9)["ndcg_10"]
    decision = run_gate(0.5, prefix="wish")
    # the champion knows none of the new queries, whatever it scored on its own
    assert decision["champion_ndcg_10"] < decision["ndcg_10"] < stored
    assert decision["promoted"] and alias("previous") == "1"
    assert run_gate(0.9)["champion"] == "2" and alias("champion") == "1"


def test_figures_of_another_retriever_are_refused(project: Path) -> None:
    """Prevents a retriever that is registered with the metrics of the one before, and judged by them."""
    build(0.5)
    before = read_json("reports/evaluation.json")
    write_retriever("models/retriever", dataset(), 0.9)
    with pytest.raises(ArtifactMismatchError, match=r"evaluation\.json is of the retriever .*evaluate this one first"):
        register.fn()
    build(0.9)
    write_json("reports/gate.json", {**read_json("reports/gate.json"), "retriever": before["retriever"]})
    told = rf"gate\.json is of the retriever {before['retriever'][:12]}, models/retriever is .*evaluate this one first"
    with pytest.raises(ArtifactMismatchError, match=told):
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
        patched.setattr(registry, "ask", broken)
        assert "the store is gone" in run_gate(0.5)["fault"] and alias("champion") is None
    assert run_gate(0.5)["promoted"] and num_versions() == 1


def test_other_code_or_metrics_make_another_version(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a champion that serves a fault mended long ago, and figures of another measure beside the new ones."""
    run_gate(0.5)
    register.fn()
    assert num_versions() == 1
    with monkeypatch.context() as patched:
        patched.setattr(registry, "code_here", lambda: "mended")
        patched.setattr(registry, "check_answers", lambda version: None)
        assert not gate.settled(gate.challenger())
        assert run_gate(0.5)["promoted"] and alias("champion") == "2", "also where DVC has nothing to run"
        registry.rollback(to="1")
        measured(0.4)
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
        patched.setattr(registry, "code_here", lambda: "worse")
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
    measured(0.0)  # as it is with such a fault
    register.fn()
    decision = retrain._refresh([]).decision
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
    assert retrain._refresh([]).outcome == "Promoted" and alias("champion") == "3"


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


def test_an_upgrade_with_a_champion_of_an_older_format(project: Path) -> None:
    """Prevents a run that stops at a champion registered by an earlier rabtriever, or that takes it for a bar."""
    run_gate(0.9)
    tracking.client().set_model_version_tag(registry.MODEL, "1", FORMAT_TAG, "1")
    verify.check_files()
    decision = run_gate(0.5)
    assert decision["promoted"] and decision["reason"].startswith("version 1 has format 1, not answered here")
    assert decision["best"] is None and (alias("champion"), alias("previous")) == ("2", "1")
    assert gate.settled(gate.challenger())
    assert not run_gate(0.2)["promoted"], "from then on versions are compared"
    with pytest.raises(ArtifactMismatchError, match="version 1 has format 1, this rabtriever answers 2"):
        registry.rollback()
    assert alias("champion") == "2"
