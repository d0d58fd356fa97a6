"""Runs and the registry on a temporary SQLite store: what is kept, what is refused, what works from elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.ops import registry, tracking
from rabtriever.ops.promotion import GateParams
from tests.toy import dataset, per_query, write_retriever

EVALUATION = {"dataset": "toy", "systems": {"student": {"nDCG@10": 50.0, "ms_per_query": None}}}


def register(quality: float) -> registry.RegisteredVersion:
    """Registers a toy retriever of this quality."""
    data = dataset()
    write_retriever("models/retriever", data, quality)
    with tracking.stage_run("register", {}) as run:
        return registry.register(run, "models/retriever", data.hash, EVALUATION, per_query(data, quality))


def test_stage_run_keeps_what_is_logged(store: Path) -> None:
    """Prevents metrics without steps, names MLflow refuses, and artefacts outside mlruns."""
    Path("reports").mkdir()
    Path("reports/data.json").write_text('{"hash": "0123456789abcdef"}')
    gate = GateParams(1.0, 0.95, 1000, 10.0, 50.0, 2.0)
    with tracking.stage_run("prepare", {"source": "raw", "nested": {"depth": 2}, "promote": gate}) as run:
        for step in range(3):
            run.log_metrics({"nDCG@10": step / 2, "loss": 1.0}, step=step)
        run.log_artifact("reports/data.json")
        run.set_tags({"note": 7})
    client = tracking.client()
    kept = client.get_run(run.run_id)
    assert kept.info.status == "FINISHED"
    told = {f"promote.{name}": str(value) for name, value in asdict(gate).items()}
    assert kept.data.params == {"source": "raw", "nested.depth": "2", **told}
    assert kept.data.tags["data_hash"] == "0123456789abcdef" and kept.data.tags["note"] == "7"
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.run_id, "ndcg_10")] == [
        (0, 0.0),
        (1, 0.5),
        (2, 1.0),
    ]
    assert (store / "mlruns" / "artifacts" / run.run_id / "artifacts" / "data.json").is_file()


def test_stages_of_one_process_group_share_a_parent(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a flat list of runs, and stages of an outer flow attached to a parent of their own."""
    client = tracking.client()
    parents = []
    for stage in ("prepare", "train_biencoder"):
        with tracking.stage_run(stage, {}) as run:
            parents.append(client.get_run(run.run_id).data.tags["mlflow.parentRunId"])
            assert client.get_run(parents[-1]).info.status == "RUNNING"
        assert client.get_run(parents[-1]).info.status == "FINISHED"
    assert parents[0] == parents[1]
    with tracking.pipeline_run("retrain") as pipeline:
        with tracking.stage_run("evaluate", {}) as run:
            assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == pipeline.run_id
        assert client.get_run(pipeline.run_id).info.status == "RUNNING"
    assert client.get_run(pipeline.run_id).info.status == "FINISHED"
    with tracking.stage_run("prepare", {}) as run:
        assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == parents[0]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_run_of_a_stage_that_ends_badly_says_so(store: Path, error: type[BaseException], status: str) -> None:
    """Prevents runs that look like running or finished for ever."""
    with pytest.raises(error), tracking.stage_run("distill", {}) as run:
        raise error
    client = tracking.client()
    assert client.get_run(run.run_id).info.status == status
    assert client.get_run(client.get_run(run.run_id).data.tags["mlflow.parentRunId"]).info.status == status


def test_hashes_of_upstream_outputs_are_tags(store: Path) -> None:
    """Prevents a run that cannot be traced to the data it saw."""
    Path("dvc.yaml").write_text("stages: {mine: {cmd: x, deps: [models/teacher, src/a.py]}}")
    lock = "{path: models/teacher, md5: abc.dir}"
    Path("dvc.lock").write_text(f"stages: {{train_teacher: {{cmd: x, outs: [{lock}]}}}}")
    assert tracking._dependency_tags("mine") == {"dvc.models/teacher": "abc.dir"}


def test_same_artefact_is_one_version(store: Path) -> None:
    """Prevents a new version from every run of an unchanged pipeline."""
    first, again, other = register(0.5), register(0.5), register(0.6)
    assert (first.version, again.version, other.version) == ("1", "1", "2")
    assert registry.find(first.retriever_hash, first.data_hash).version == "1"
    assert registry.find(first.retriever_hash, "another") is None
    assert registry.per_query(first) == per_query(dataset(), 0.5)
    assert first.tags["student.ndcg_10"] == "50.00" and first.tags["parent.data"] == dataset().hash


def test_damaged_folder_is_not_registered(store: Path) -> None:
    """Prevents a version that nobody can load."""
    data = dataset()
    write_retriever("models/retriever", data, 0.5)
    Path("models/retriever/best.json").write_text("{}")
    with tracking.stage_run("register", {}) as run, pytest.raises(ArtifactMismatchError, match="best.json"):
        registry.register(run, "models/retriever", data.hash, EVALUATION, {})
    assert registry.get("1") is None


def test_aliases_move_and_come_back(store: Path) -> None:
    """Prevents a promotion that loses the way back, and a rollback to a version that does not load."""
    first, second = register(0.5), register(0.6)
    assert registry.champion() is None
    with pytest.raises(ValueError, match="two promotions"):
        registry.rollback()
    for version in (first, second, second):
        registry.promote(version)
    assert (registry.get("champion").version, registry.get("previous").version) == ("2", "1")
    now, before = registry.rollback()
    assert (now.version, before.version) == ("1", "2")
    (registry.local_folder(second) / "best.json").unlink()
    with pytest.raises(ArtifactMismatchError, match=r"best\.json is missing"):
        registry.rollback()
    assert registry.champion().version == "1"


def test_a_store_that_fails_is_told(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a page of traceback where a server is down."""
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"http://127.0.0.1:9, failed: no answer; see"), tracking.store_errors():
        raise MlflowException("no answer")
    with pytest.raises(KeyError), tracking.store_errors():
        raise KeyError("another")


def test_lightning_logger_writes_into_the_run(store: Path) -> None:
    """Prevents a trainer that opens a run of its own."""
    with tracking.stage_run("train_teacher", {}) as run:
        logger = run.lightning_logger()
        logger.log_metrics({"train/loss": 0.25}, step=4)
    assert logger.run_id == run.run_id
    (metric,) = tracking.client().get_metric_history(run.run_id, "train/loss")
    assert (metric.step, metric.value) == (4, 0.25)
