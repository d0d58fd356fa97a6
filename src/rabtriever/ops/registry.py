"""The model registry: retrievers as versions of one MLflow model, the `champion` among them and the way back.

Owns what a version carries (the retriever folder as a pyfunc, its hashes, its metrics per query, the decisions on it).
Whether a version deserves promotion is decided in `promotion.py`. A version is data: what it carries is never executed
here, and `answering.py` says which ones are opened.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, read_manifest, write_json
from rabtriever.ops import tracking
from rabtriever.ops.answering import (
    ARTIFACTS,
    FORMAT,
    FORMAT_TAG,
    HASH_TAG,
    PATH_TAG,
    artifact_name,
    ask,
    foreign_content,
    not_trusted,
    trusted_folder,
)
from rabtriever.ops.description import version_description
from rabtriever.ops.examples import EXAMPLE
from rabtriever.ops.packaging import MODEL_FOLDER, carried_code, code_here, save_model
from rabtriever.ops.scratch import scratch_folder
from rabtriever.ops.version_files import existing, version_file

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

MODEL = "rabtriever"
CHAMPION, PREVIOUS = "champion", "previous"
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter for an alias that is not set
_WITHDRAWN = "withdrawn"  # tag of a version that somebody took out of service by hand
CODE_TAG = "code_hash"  # tag: identity of the code that a version was measured with

PerQuery = dict[str, dict[str, float]]


@dataclass(frozen=True)
class RegisteredVersion:
    """One version of the registered model.

    Attributes:
        version: its number, as text.
        retriever_hash: identity of the retriever folder (the hash in its manifest).
        data_hash: identity of the prepared data it was evaluated on.
        run_id: the MLflow run that registered it and holds its files.
        tags: everything recorded on it, the latest decision among it.
    """

    version: str
    retriever_hash: str
    data_hash: str
    run_id: str
    tags: dict[str, str]

    def __str__(self) -> str:
        return f"version {self.version}"


def find(retriever_hash: str, data_hash: str) -> RegisteredVersion | None:
    """Returns the version of this artefact, evaluated on this data with the code here, or None."""
    return _of_this_code(_versions(retriever_hash, data_hash), code_here())


def get(version: str) -> RegisteredVersion | None:
    """Returns a version by its number or alias, or None when there is no such version."""
    client = tracking.client()
    from mlflow.exceptions import MlflowException

    look_up = client.get_model_version if version.isdigit() else client.get_model_version_by_alias
    try:
        return _version(look_up(MODEL, version))
    except MlflowException as error:
        if error.error_code in _ABSENT:
            return None
        raise  # a store that cannot be reached must not pass for an empty one


def versions() -> list[RegisteredVersion]:
    """Returns all versions, the newest first."""
    found = tracking.client().search_model_versions(f"name = '{MODEL}'")
    return [_version(one) for one in sorted(found, key=lambda one: int(one.version), reverse=True)]


def champion() -> RegisteredVersion | None:
    """Returns the version in service, or None before the first promotion."""
    return get(CHAMPION)


def register(
    run: tracking.StageRun, folder: str | Path, data_hash: str, evaluation: Mapping[str, Any], per_query: PerQuery
) -> RegisteredVersion:
    """Returns the version of a retriever, registering it unless one has the same artefact, data, code and metrics.

    A version that was damaged, or carries other code than runs here, or was measured otherwise, is left as it is beside
    the new one, which is withdrawn where it was.

    Args:
        run: the stage's run, which will hold the files.
        folder: retriever folder; verified against its manifest.
        data_hash: identity of the prepared data.
        evaluation: content of reports/evaluation.json.
        per_query: metrics of the retriever for each dev query, which the gate compares on, 0 to 1.

    Raises:
        ArtifactMismatchError: the folder does not match its manifest, or holds what no version may carry.
    """
    folder = Path(folder)
    manifest = read_manifest(folder, "retriever")
    before, code = _versions(manifest.hash, data_hash), code_here()
    known = _of_this_code(before, code)
    if known is not None and _is_whole(known, per_query):
        run.set_tags({"model_version": known.version})
        return known
    client = tracking.client()
    with scratch_folder() as scratch:
        save_model(folder, scratch / MODEL_FOLDER)
        if fault := foreign_content(scratch / MODEL_FOLDER / ARTIFACTS / folder.name, manifest):
            raise ArtifactMismatchError(f"{folder} cannot be registered: {fault}; build the index again")
        write_json(scratch / "evaluation" / "per_query.json", per_query)
        write_json(scratch / "evaluation" / "evaluation.json", evaluation)
        run.log_artifact(scratch)
    tags = {
        FORMAT_TAG: str(FORMAT),
        HASH_TAG: manifest.hash,
        "data_hash": data_hash,
        CODE_TAG: code,
        PATH_TAG: f"{MODEL_FOLDER}/{ARTIFACTS}/{folder.name}",
        "dataset": str(evaluation.get("dataset", "")),
        **{f"parent.{name}": parent for name, parent in manifest.parents.items()},
        **{tracking.metric_name(f"student.{name}"): f"{value:.2f}" for name, value in _student(evaluation).items()},
    }
    if before and is_withdrawn(before[0]):
        tags[_WITHDRAWN] = "true"
    _ensure_model()
    source = f"{client.get_run(run.run_id).info.artifact_uri}/{MODEL_FOLDER}"
    described = version_description(folder, evaluation)
    made = client.create_model_version(MODEL, source, run_id=run.run_id, tags=tags, description=described)
    run.set_tags({"model_version": made.version})
    return _version(made)


def per_query(version: RegisteredVersion) -> PerQuery:
    """Returns the metrics per dev query (0 to 1) that were stored with a version.

    Raises:
        FileNotFoundError: it has lost its files.
        ArtifactMismatchError: the file holds something else.
    """
    found = read_json(_file(version, "evaluation/per_query.json"))
    rows = list(found.values()) if isinstance(found, dict) else [None]
    if not all(isinstance(row, dict) and all(_is_share(value) for value in row.values()) for row in rows):
        raise not_trusted(str(version), "its per_query.json has other values than metrics from 0 to 1")
    return found


def local_folder(version: RegisteredVersion) -> Path:
    """Returns the retriever folder of a version: in place for a local store, downloaded for a remote one.

    Raises:
        FileNotFoundError: it has lost its files.
        ArtifactMismatchError: it is not trusted, see `answering.trusted_folder`.
    """
    name = str(version)
    artifact_name(version.tags, name)  # before anything is downloaded

    def opened(artifacts: Path) -> Path:
        return existing(trusted_folder(artifacts.parent, version.tags, name), name)

    def check(downloaded: Path) -> None:
        read_manifest(opened(downloaded), "retriever")

    return opened(_file(version, f"{MODEL_FOLDER}/{ARTIFACTS}", check))


def check_answers(version: RegisteredVersion, query: str = EXAMPLE) -> None:
    """Asks a version one question.

    Args:
        version: the version to try.
        query: the question.

    Raises:
        ArtifactMismatchError: it does not load, fails, or answers with nothing usable.
    """
    advice = "register the retriever again (dvc repro --force register) or choose another version"
    try:
        hits = answer(version, query, 1)
        scores = [float(hit["score"]) for hit in hits]
    except Exception as error:  # whatever stops it from answering is the finding
        raise ArtifactMismatchError(f"{version} does not answer: {type(error).__name__}: {error}; {advice}") from error
    if len(scores) != 1 or not math.isfinite(scores[0]):
        raise ArtifactMismatchError(f"{version} answers {hits!r}, expected one document with a finite score; {advice}")


def answer(version: RegisteredVersion, query: str, k: int) -> list[dict[str, Any]]:
    """Returns {doc_id, score, title, text} of each document that a version finds, best first, with the installed code.

    Args:
        version: the version to ask.
        query: the question.
        k: documents wanted.

    Raises:
        FileNotFoundError: it has lost its files.
        ArtifactMismatchError: it was damaged, is not trusted, or is of a form that the installed code does not know.
    """
    return ask(local_folder(version), query, k)


def record_decision(version: RegisteredVersion, decision: Mapping[str, Any]) -> None:
    """Records what the gate decided, on the version and as a JSON file of its run.

    Args:
        version: the challenger.
        decision: JSON-ready, with `decided_at`, `promoted` and `reason`.
    """
    client = tracking.client()
    client.log_dict(version.run_id, dict(decision), f"decisions/{decision['decided_at'].replace(':', '')}.json")
    verdict = "promoted" if decision["promoted"] else "refused"
    for name, value in {"decision": json.dumps(decision), "verdict": verdict, "reason": decision["reason"]}.items():
        client.set_model_version_tag(MODEL, version.version, name, value)


def last_decision(version: RegisteredVersion) -> dict[str, Any] | None:
    """Returns what was last recorded with `record_decision`, or None."""
    found = version.tags.get("decision")
    return None if found is None else json.loads(found)


def promote(version: RegisteredVersion) -> None:
    """Makes a version the champion; the champion so far becomes `previous`. Neither is withdrawn by that.

    A champion with the same retriever (registered again, or with other code) does not become `previous`: that stays the
    last retriever that was another one.
    """
    client = tracking.client()
    if is_withdrawn(version):
        client.delete_model_version_tag(MODEL, version.version, _WITHDRAWN)
    before = champion()
    if before is not None and before.version == version.version:
        return
    if before is not None and before.retriever_hash != version.retriever_hash:
        client.set_registered_model_alias(MODEL, PREVIOUS, before.version)
    client.set_registered_model_alias(MODEL, CHAMPION, version.version)


def rollback(to: str = PREVIOUS) -> tuple[RegisteredVersion, RegisteredVersion]:
    """Puts an earlier version back into service, after it has loaded and answered; a second rollback undoes the first.

    The version taken out is marked as withdrawn, so that the gate does not put it back by itself; not so where that
    undoes a rollback.

    Args:
        to: a version's number, or the champion before.

    Returns:
        the version in service now, and the one that was.

    Raises:
        ValueError: there is no champion, or not that version, or it is in service.
        ArtifactMismatchError: the version does not answer; nothing was changed.
    """
    now, wanted = champion(), get(to)
    if now is None or wanted is None:
        missing = CHAMPION if now is None else to
        advice = (
            "name one that `rabtriever models list` shows"
            if missing == to != PREVIOUS
            else "it needs two promotions of different retrievers (make run)"
        )
        raise ValueError(f"no version of {MODEL!r} is {missing!r} to roll back to; {advice}")
    if wanted.version == now.version:
        raise ValueError(f"{now} is in service; name another one")
    check_answers(wanted)
    before = get(PREVIOUS)
    undone = is_withdrawn(wanted) and before is not None and wanted.version == before.version
    if not undone:  # before it is out of service, or a kill in between would have the gate put it back
        tracking.client().set_model_version_tag(MODEL, now.version, _WITHDRAWN, "true")
    promote(wanted)
    return wanted, now


def is_withdrawn(version: RegisteredVersion) -> bool:
    """Whether somebody took a version out of service by `rollback`, and nobody has put it back."""
    return _WITHDRAWN in version.tags


def _versions(retriever_hash: str, data_hash: str) -> list[RegisteredVersion]:
    """Returns the versions of this artefact evaluated on this data, whatever their code, the newest first."""
    condition = f"name = '{MODEL}' and tag.retriever_hash = '{retriever_hash}' and tag.data_hash = '{data_hash}'"
    found = tracking.client().search_model_versions(condition)
    return [_version(one) for one in sorted(found, key=lambda one: int(one.version), reverse=True)]


def _of_this_code(versions: list[RegisteredVersion], code: str) -> RegisteredVersion | None:
    return next((one for one in versions if one.tags.get(CODE_TAG) == code), None)


def _version(found: ModelVersion) -> RegisteredVersion:
    tags = dict(found.tags)
    return RegisteredVersion(
        str(found.version), tags.get("retriever_hash", ""), tags.get("data_hash", ""), found.run_id, tags
    )


def _student(evaluation: Mapping[str, Any]) -> dict[str, float]:
    values = evaluation.get("systems", {}).get("student", {})
    return {name: float(value) for name, value in values.items() if value is not None}


def _file(version: RegisteredVersion, path: str, check: Callable[[Path], None] | None = None) -> Path:
    return version_file(version.run_id, path, str(version), check)


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1


def _is_whole(version: RegisteredVersion, metrics: PerQuery) -> bool:
    """Whether a version has its files, undamaged, the code that runs here and these metrics; none of it is executed."""
    try:
        read_manifest(local_folder(version), "retriever")
        parts = [_file(version, f"{MODEL_FOLDER}/{part}") for part in ("code", "pyfunc.py")]
        return carried_code(parts[0].parent) == code_here() and per_query(version) == metrics
    except (FileNotFoundError, ArtifactMismatchError):
        return False


def _ensure_model() -> None:
    from mlflow.exceptions import MlflowException

    client = tracking.client()
    try:
        client.get_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code not in _ABSENT:
            raise
        client.create_registered_model(MODEL, description="Retrievers distilled from a generative reranker.")
