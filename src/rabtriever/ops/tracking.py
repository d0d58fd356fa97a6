"""MLflow: where runs are kept and how a stage reports into its run; the registry is in `registry.py`.

Only `MlflowClient` with explicit run ids is used: MLflow's active-run stack is per thread and would mix up runs that
a trainer logs from another thread. Nothing here can change what a stage produces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rabtriever.core.artifacts import read_json
from rabtriever.ops import local_store
from rabtriever.ops.store_errors import brief_waits, store_errors_of

if TYPE_CHECKING:
    from lightning.pytorch.loggers import MLFlowLogger
    from mlflow import MlflowClient

EXPERIMENT = "rabtriever"
PARENT_RUN = "RABTRIEVER_PARENT_RUN"
_PIPELINE_TAG = "rabtriever.pipeline"
_SWITCHES = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # it shows for local copies too
}
_MAX_BATCH = 1000  # metrics in one call, MLflow's limit


def tracking_uri() -> str:
    """Returns the address of the store: MLFLOW_TRACKING_URI, else `mlruns/mlflow.db` under the working folder.

    Raises:
        ValueError: the working folder's path has a character that no database address can hold.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or local_store.address(Path("mlruns/mlflow.db"))


def require() -> None:
    """Makes sure that there is a store to read, without creating one; a remote one is taken to exist.

    Raises:
        FileNotFoundError: there is none.
    """
    uri = tracking_uri()
    database = local_store.database(uri)
    if database is not None and not database.exists():
        raise FileNotFoundError(f"no store {uri}; run `make run` first, and this in the repository root")


def client() -> MlflowClient:
    """Returns a client of the tracking store and registry, creating the store and the experiment when absent.

    In a store that was moved or copied, the addresses of artefacts become those of the folder where it lies now. A
    store that needs nothing of this is opened without a lock, so that a folder without write rights can be read.

    Raises:
        ConnectionError: the store's file cannot be read, or is not a database.
        BlockingIOError: another process has been creating the store for half a minute.
    """
    return _client(tracking_uri())


def store_errors() -> contextlib.AbstractContextManager[None]:
    """Turns what MLflow and its database raise in the block into a ConnectionError that says what to do."""
    return store_errors_of(tracking_uri)


def artifact_path(uri: str) -> Path | None:
    """Returns the local path of an artefact's recorded address; None where it is on a server.

    In a store that was moved to where nothing can be written, the recorded address is still the old one.
    """
    return local_store.path_of(uri, local_store.database(tracking_uri()), EXPERIMENT)


@lru_cache(maxsize=4)
def _client(uri: str) -> MlflowClient:
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    database = local_store.database(uri)
    with store_errors_of(lambda: uri):  # before MLflow, which would try for minutes to open what cannot be opened
        ready = database is not None and local_store.is_prepared(database, EXPERIMENT)
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback beside each error
    if ready or (database is not None and local_store.is_read_only(database)):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    patience = contextlib.nullcontext() if os.environ.get(PARENT_RUN) else brief_waits()  # a run waits for its server
    with contextlib.nullcontext() if database is None else local_store.locked(database), patience:
        if database is not None:
            with store_errors_of(lambda: uri):
                local_store.relocate(database, EXPERIMENT)
        made = MlflowClient(tracking_uri=uri, registry_uri=uri)
        _ensure_experiment(made, None if database is None else database.parent)
    return made


def _ensure_experiment(store: MlflowClient, folder: Path | None) -> None:
    """Creates the experiment when absent; in a local store, also notes what an older one lacks."""
    tags = {local_store.KIND_TAG: local_store.KIND}
    if folder is not None:
        tags[local_store.ROOT_TAG] = folder.as_uri()
    found = store.get_experiment_by_name(EXPERIMENT)
    if found is None:
        # Before any logger does it: MLflow's own default would put artefacts beside the working folder.
        location = None if folder is None else f"{folder.as_uri()}/{local_store.ARTIFACTS}"
        store.create_experiment(EXPERIMENT, artifact_location=location, tags=tags)
    elif folder is not None:
        for name, value in tags.items():
            if name not in found.tags:
                store.set_experiment_tag(found.experiment_id, name, value)


def metric_name(name: str) -> str:
    """Returns a name MLflow accepts: `student/nDCG@10` becomes `student/ndcg_10`."""
    return name.replace("@", "_").lower()


@dataclass(frozen=True)
class StageRun:
    """The MLflow run of one stage.

    Attributes:
        run_id: id of the run.
        client: the client bound to its store.
    """

    run_id: str
    client: MlflowClient

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs numbers in one call (about 10 ms, nearly independent of how many).

        Args:
            metrics: name to value; names are made acceptable with `metric_name`.
            step: training step the numbers belong to.
        """
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now = get_current_time_millis()
        batch = [Metric(metric_name(name), float(value), now, step or 0) for name, value in metrics.items()]
        for start in range(0, len(batch), _MAX_BATCH):
            self.client.log_batch(self.run_id, metrics=batch[start : start + _MAX_BATCH])

    def log_params(self, params: Any) -> None:
        """Logs settings.

        Args:
            params: a mapping or a dataclass; those within become dotted names.
        """
        from mlflow.entities import Param

        entries = [Param(name, str(value)) for name, value in _flat(params).items()]
        for start in range(0, len(entries), 100):  # MLflow's limit for params in one call
            self.client.log_batch(self.run_id, params=entries[start : start + 100])

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Copies a file or folder to the run's artefacts.

        Args:
            path: file or folder to copy.
            folder: folder inside the run's artefacts, the top by default.
        """
        copy = self.client.log_artifacts if Path(path).is_dir() else self.client.log_artifact
        copy(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Sets tags; values are written as text."""
        _set_tags(self.client, self.run_id, tags)

    def lightning_logger(self) -> MLFlowLogger:
        """Returns a Lightning logger that writes into this run."""
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger(
            experiment_name=EXPERIMENT, tracking_uri=tracking_uri(), run_id=self.run_id, log_model=False
        )


@contextlib.contextmanager
def stage_run(stage: str, params: Any) -> Iterator[StageRun]:
    """Opens the MLflow run of a stage below the run of the pipeline it is part of, and ends both as the stage ends.

    The pipeline's run is the one the outer flow names in RABTRIEVER_PARENT_RUN; otherwise it is found or created by
    the process group, which all stages of one `dvc repro` share.

    Args:
        stage: name of the stage.
        params: its settings, a dataclass or a mapping.

    Yields:
        the run to report into; FINISHED on return, FAILED on an exception, KILLED on an interrupt.
    """
    store = client()
    parent, owned = _parent_run(store)
    name = os.environ.get("DVC_STAGE", stage)
    run = StageRun(_create_run(store, name, {"mlflow.parentRunId": parent, "stage": stage}), store)
    run.log_params(params)
    run.set_tags({**_git_tags(), **_data_tags(), **_dependency_tags(name)})
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        store.set_terminated(run.run_id, status)
        if owned:
            store.set_terminated(parent, status)


@contextlib.contextmanager
def pipeline_run(name: str) -> Iterator[StageRun]:
    """Opens the parent run of a whole pipeline and names it in RABTRIEVER_PARENT_RUN for the stages started inside.

    Args:
        name: name of the run.

    Yields:
        the parent run.
    """
    store = client()
    run = StageRun(_create_run(store, name, _git_tags()), store)
    os.environ[PARENT_RUN] = run.run_id
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        os.environ.pop(PARENT_RUN, None)
        run.set_tags(_data_tags())
        store.set_terminated(run.run_id, status)


def _create_run(store: MlflowClient, name: str, tags: Mapping[str, str]) -> str:
    experiment = store.get_experiment_by_name(EXPERIMENT)
    user = os.environ.get("USER", "unknown")
    return store.create_run(experiment.experiment_id, run_name=name, tags={"mlflow.user": user, **tags}).info.run_id


def _parent_run(store: MlflowClient) -> tuple[str, bool]:
    """Returns the id of the pipeline's run, and whether this process (and not an outer flow) has to end it."""
    if given := os.environ.get(PARENT_RUN):
        return given, False
    pipeline = _pipeline_key()
    experiment = store.get_experiment_by_name(EXPERIMENT).experiment_id
    found = store.search_runs([experiment], f"tags.`{_PIPELINE_TAG}` = '{pipeline}'", max_results=1)
    if found:
        store.update_run(found[0].info.run_id, status="RUNNING")
        return found[0].info.run_id, True
    name = "dvc repro" if "DVC_STAGE" in os.environ else "single stage"
    return _create_run(store, name, {_PIPELINE_TAG: pipeline, **_git_tags()}), True


def _pipeline_key() -> str:
    """Returns what all stages of one `dvc repro` share: host, process group and when its leader started."""
    import psutil

    group = os.getpgrp()
    try:
        started = int(psutil.Process(group).create_time())
    except psutil.NoSuchProcess:  # the leader may be gone
        started = 0
    return f"{socket.gethostname()}/{group}/{started}"


def _git_tags() -> dict[str, str]:
    """Returns the commit and whether tracked files differ from it; nothing outside a git repository."""
    try:
        commit = _git("rev-parse", "HEAD")
        changed = bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"mlflow.source.git.commit": commit, "git.changed": str(changed).lower()}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _data_tags() -> dict[str, str]:
    """Returns the hash of the prepared data, as its report gives it, once there is one."""
    report = Path("reports/data.json")
    if not report.exists():
        return {}
    found = read_json(report)
    return {"data_hash": found["hash"]} if "hash" in found else {}


def declared_stage(name: str) -> dict[str, Any]:
    """What dvc.yaml says of a stage; nothing where there is no such file or stage."""
    pipeline = Path("dvc.yaml")
    stages = (yaml.safe_load(pipeline.read_text(encoding="utf-8")) or {}) if pipeline.exists() else {}
    return stages.get("stages", {}).get(name, {})


def _dependency_tags(stage: str) -> dict[str, str]:
    """Returns the hashes `dvc.lock` knows for the outputs of other stages that this one reads."""
    lock, pipeline = Path("dvc.lock"), Path("dvc.yaml")
    if not (lock.exists() and pipeline.exists()):
        return {}
    stages = (yaml.safe_load(lock.read_text()) or {}).get("stages", {})
    outs = {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs", []) if "md5" in out}
    named = [dep for dep in declared_stage(stage).get("deps", []) if isinstance(dep, str)]
    named += [dep["path"] for dep in stages.get(stage, {}).get("deps", [])]
    return {f"dvc.{path}": outs[path] for path in dict.fromkeys(named) if path in outs}


def _set_tags(store: MlflowClient, run_id: str, tags: Mapping[str, Any]) -> None:
    from mlflow.entities import RunTag

    store.log_batch(run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])


def _flat(params: Any, prefix: str = "") -> dict[str, Any]:
    """Returns settings as one level of dotted names."""
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        params = dataclasses.asdict(params)
    flat: dict[str, Any] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
