"""From the name of a retriever to its folder: an alias, a version number, a `models:/` URI, or a folder's path.

A registry in a local SQLite file is read directly: starting MLflow takes seconds, and searching need not have it
installed. Whatever this cannot read is left to MLflow.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from rabtriever.ops import answering, local_store, packaging, registry, tracking
from rabtriever.ops.version_files import existing

_URI = re.compile(r"models:/(?P<model>[^/@]+)(?:/(?P<version>[0-9]+)|@(?P<alias>[^/@]+))")
_ALIASES = (registry.CHAMPION, registry.PREVIOUS)
EXPECTED = "champion, previous, a version number, a models:/ URI, or a retriever folder"


@dataclass(frozen=True)
class Found:
    """Where a retriever is.

    Attributes:
        folder: the retriever folder.
        version: its number in the registry; None for a folder that was named itself.
        code: identity of the code that registered it; None where that is not known.
    """

    folder: Path
    version: str | None = None
    code: str | None = None

    @property
    def note(self) -> str | None:
        """One line where a version was registered by other code than answers here; None elsewhere."""
        if self.code is None or self.code == packaging.code_here():
            return None
        return f"version {self.version} was registered by other code than is installed; scores may differ from its own"


def find_retriever(name: str | Path) -> Found:
    """Returns where the retriever of a name is; nothing of it is read.

    Args:
        name: an alias, a version number, a `models:/` URI, or the path of a retriever folder. A plain word is an
            alias or a number before it is a folder.

    Raises:
        FileNotFoundError: there is no such folder, no registry, or the version has lost its files.
        ArtifactMismatchError: the version is not trusted; says why.
        ValueError: the registry has no such version, or the URI is of another model.
        ModuleNotFoundError: the registry is on a server, and MLflow is not installed.
    """
    text = os.fspath(name)
    if text.startswith("models:"):
        return _version(_reference(text))
    if isinstance(name, Path) or os.sep in text or text in (".", ".."):
        return Found(Path(text))
    if text not in _ALIASES and Path(text).is_dir():
        return Found(Path(text))
    if text in _ALIASES or re.fullmatch("[0-9]+", text):
        return _version(text)
    raise FileNotFoundError(f"{text!r} is not a folder; expected {EXPECTED}")


def _reference(uri: str) -> str:
    """The version number or alias in a `models:/` URI."""
    match = _URI.fullmatch(uri)
    if match is None or match["model"] != registry.MODEL:
        model = registry.MODEL
        raise ValueError(f"the URI is {uri!r}, expected models:/{model}/3 or models:/{model}@champion")
    return match["version"] or match["alias"]


def _version(reference: str) -> Found:
    tracking.require()
    uri = tracking.tracking_uri()
    database = local_store.database(uri)
    if database is not None:
        with contextlib.suppress(_UnknownForm), tracking.store_errors():
            return _in_file(database, reference)
    if importlib.util.find_spec("mlflow") is None:
        raise ModuleNotFoundError(
            f"{reference!r} is in the registry {uri}, which needs MLflow to be read; install rabtriever[ops], or name "
            "a retriever folder",
            name="mlflow",
        )
    found = registry.get(reference)
    if found is None:
        raise _no_version(reference)
    return Found(registry.local_folder(found), found.version, found.tags.get(registry.CODE_TAG))


class _UnknownForm(Exception):
    """The database is not as the MLflow that this was written for has it."""


def _in_file(database: Path, reference: str) -> Found:
    """The version in a SQLite store that has its artefacts in local folders."""
    try:
        number, recorded, tags = _recorded(database, reference)
    except sqlite3.OperationalError as error:
        if str(error).startswith("no such"):  # table or column
            raise _UnknownForm from error
        raise
    source = local_store.path_of(recorded, database, tracking.EXPERIMENT)
    if source is None or "artifact_path" not in tags:
        raise _UnknownForm
    folder = answering.trusted_folder(source, tags, f"version {number}")
    return Found(existing(folder, f"version {number}"), number, tags.get(registry.CODE_TAG))


def _recorded(database: Path, reference: str) -> tuple[str, str, dict[str, str]]:
    """Number, address and tags of a version."""
    with local_store.reading(database) as store:
        number: str | int = reference
        if not reference.isdigit():
            query = "select version from registered_model_aliases where name = ? and alias = ?"
            row = store.execute(query, (registry.MODEL, reference)).fetchone()
            if row is None:
                raise _no_version(reference)
            number = row[0]
        query = "select source from model_versions where name = ? and version = ? and current_stage is not ?"
        row = store.execute(query, (registry.MODEL, int(number), "Deleted_Internal")).fetchone()
        if row is None:
            raise _no_version(reference)
        query = "select key, value from model_version_tags where name = ? and version = ?"
        tags = dict(store.execute(query, (registry.MODEL, int(number))).fetchall())
    return str(number), row[0] or "", tags


def _no_version(reference: str) -> ValueError:
    return ValueError(
        f"the registry has no {reference!r}; run make run to train and promote one, or name a retriever folder"
    )
