"""MLflow: where runs are kept and how a stage reports into its run; the registry is in `registry.py`.

Only `MlflowClient` with explicit run ids is used: MLflow's active-run stack is per thread and would mix up runs that
a trainer logs from another thread. Nothing here can change what a stage produces.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rabtriever.core.artifacts import read_json

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
    """Returns the address of the store: MLFLOW_TRACKING_URI, else `mlruns/mlflow.db` under the working folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlruns/mlflow.db').resolve()}"


def require() -> None:
    """Makes sure that there is a store to read, without creating one; a remote one is taken to exist.

    Raises:
        FileNotFoundError: there is none.
    """
    uri = tracking_uri()
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise FileNotFoundError(f"no store {uri}; run `make run` first, and this in the repository root")


def client() -> MlflowClient:
    """Returns a client of the tracking store and registry, creating the store and the experiment when absent."""
    return _client(tracking_uri())


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turns what MLflow raises, such as for a server that does not answer, into an error that is told as others are.

    Raises:
        ConnectionError: MLflow raised something.
    """
    try:
        yield
    except Exception as error:
        module = sys.modules.get("mlflow.exceptions")  # not imported for this alone: it takes seconds
        if module is None or not isinstance(error, module.MlflowException):
            raise
        uri = tracking_uri()
        served = "; see that the address in MLFLOW_TRACKING_URI is right and its server runs"
        advice = "" if uri.startswith("sqlite:") else served
        raise ConnectionError(f"MLflow, with the store {uri}, failed: {error}{advice}") from error


@lru_cache(maxsize=4)
def _client(uri: str) -> MlflowClient:
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    folder = _store_folder(uri)
    with _locked(folder):
        made = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if made.get_experiment_by_name(EXPERIMENT) is None:
            # Before any logger does it: MLflow's own default would put artefacts beside the working folder.
            location = None if folder is None else (folder / "artifacts").as_uri()
            made.create_experiment(EXPERIMENT, artifact_location=location)
    return made


def _store_folder(uri: str) -> Path | None:
    """Returns the folder of a SQLite store, None for a store that is not a local file."""
    if not uri.startswith("sqlite:///"):
        return None
    folder = Path(uri.removeprefix("sqlite:///")).resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _locked(folder: Path | None) -> contextlib.AbstractContextManager[Any]:
    """Lets one process at a time create the store: two first migrations at once would break each other."""
    from filelock import FileLock

    return contextlib.nullcontext() if folder is None else FileLock(folder / ".lock")


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
    """What dvc.yaml says of a stage, such as `mine@0`; nothing where there is no such file or stage."""
    pipeline = Path("dvc.yaml")
    stages = (yaml.safe_load(pipeline.read_text(encoding="utf-8")) or {}) if pipeline.exists() else {}
    stage = stages.get("stages", {}).get(name.split("@")[0], {})
    return stage.get("do", stage)  # foreach and matrix keep the stage under `do`


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
