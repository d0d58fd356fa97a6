"""The store in a local SQLite file, looked at without MLflow: what it holds, and where its artefacts are.

MLflow records absolute addresses. A store therefore notes the folder it lies in, and `relocate` rewrites the addresses
of a store that was moved or copied.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT_TAG = "rabtriever.store_root"  # of the experiment: address of the folder that the recorded addresses mean
KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"  # pages show runs and models first, not traces
ARTIFACTS = "artifacts"  # folder beside the database
DOCUMENTS = "documents.db"  # file beside the database: documents that were changed since a version was trained
_SCHEME = "sqlite:///"
_NOT_IN_ADDRESSES = "%?"
_PATIENCE = 30.0  # seconds to wait for another process that writes
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


class Content(NamedTuple):
    """What a store holds.

    Attributes:
        versions: number of registered versions, of all models.
        runs: ids of all runs.
    """

    versions: int
    runs: frozenset[str]


def database(uri: str) -> Path | None:
    """The database file that an address names; None for a store that is not a local file.

    >>> database("http://127.0.0.1:5000") is None
    True
    """
    if not uri.startswith(_SCHEME):
        return None
    return Path(uri.removeprefix(_SCHEME).partition("?")[0]).resolve()


def address(path: Path) -> str:
    """The address of a database file.

    Raises:
        ValueError: its path has a character that no database address can hold.
    """
    path = path.resolve()
    if wrong := [character for character in _NOT_IN_ADDRESSES if character in str(path)]:
        raise ValueError(
            f"the store would be {path}, and the address of a database cannot hold {' or '.join(map(repr, wrong))}; "
            "rename that folder, or set MLFLOW_TRACKING_URI to a store elsewhere"
        )
    return f"{_SCHEME}{path}"


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write and takes no lock file.

    Raises:
        sqlite3.Error: the file is not a database, or cannot be read.
    """
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        yield connection


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lets one process at a time create a store or rewrite its addresses.

    Raises:
        BlockingIOError: another process has held the lock for half a minute.
        PermissionError: the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.parent / ".lock", timeout=_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"another process holds {lock.lock_file}; wait for its end or stop it") from None
    except OSError as error:
        raise PermissionError(
            f"the store cannot be created or changed in {path.parent}: {error.strerror}; give yourself the right to "
            "write this folder, or set MLFLOW_TRACKING_URI to a store elsewhere"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_read_only(path: Path) -> bool:
    """Whether there is a database that cannot be written, or beside which SQLite cannot write."""
    return path.exists() and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))


def is_prepared(path: Path, experiment: str) -> bool:
    """Whether a database has an experiment, with its kind, and addresses of the folder where it lies.

    Raises:
        sqlite3.Error: the file is not a database, or cannot be read.
    """
    if not path.exists():
        return False
    with reading(path) as connection:
        if "experiment_tags" not in _tables(connection):
            return False
        tags = _tags(connection, experiment)
    return tags.get(ROOT_TAG) == path.parent.as_uri() and KIND_TAG in tags


def content(path: Path) -> Content:
    """What a database holds; nothing where there is none.

    Raises:
        sqlite3.Error: the file is not a database, or cannot be read.
    """
    if not path.exists():
        return Content(0, frozenset())
    with reading(path) as connection:
        tables = _tables(connection)
        versions = "select count(*) from model_versions"
        counted = connection.execute(versions).fetchone()[0] if "model_versions" in tables else 0
        runs = connection.execute("select run_uuid from runs").fetchall() if "runs" in tables else []
    return Content(counted, frozenset(row[0] for row in runs))


def relocate(path: Path, experiment: str) -> bool:
    """Rewrites the addresses below the folder where a database was to those below the folder where it is.

    All of them or none; addresses elsewhere stay. The caller holds `locked`.

    Returns:
        whether anything had to be rewritten.

    Raises:
        sqlite3.Error: the database cannot be written.
    """
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
        connection.execute("begin immediate")
        old, new = root(connection, path, experiment), path.parent.as_uri()
        if old is None:
            return False
        if moved := old != new:
            for table, column in _ADDRESSES:
                if column in (row[1] for row in connection.execute(f"pragma table_info({table})")):
                    _rewrite(connection, table, column, old, new)
        tag = "insert or replace into experiment_tags (key, value, experiment_id) "
        connection.execute(
            tag + "select ?, ?, experiment_id from experiments where name = ?", (ROOT_TAG, new, experiment)
        )
        connection.execute("commit")
    return moved


def root(connection: sqlite3.Connection, path: Path, experiment: str) -> str | None:
    """The address of the folder that the recorded addresses mean; None where that is not known.

    A store of version 0.2 noted none. There it is the folder above the experiment's artefacts, if it has the name of
    the folder here and the artefacts are here.
    """
    if "experiment_tags" not in _tables(connection):
        return None
    if noted := _tags(connection, experiment).get(ROOT_TAG):
        return noted
    query = "select artifact_location from experiments where name = ?"
    location = (connection.execute(query, (experiment,)).fetchone() or ("",))[0] or ""
    folder, _, last = location.rpartition("/")
    if last != ARTIFACTS or not folder.startswith("file:"):
        return None
    here = path.parent
    alike = folder.rpartition("/")[2] == here.as_uri().rpartition("/")[2]
    return folder if folder == here.as_uri() or (alike and (here / ARTIFACTS).is_dir()) else None


def path_of(uri: str, path: Path | None, experiment: str) -> Path | None:
    """The path that a recorded address means here, also where `relocate` could not write; None for one on a server.

    Args:
        uri: a recorded address.
        path: the database that has recorded it; None for a store that is not a local file.
        experiment: name of the experiment.
    """
    if path is not None and path.exists():
        with reading(path) as connection:
            old = root(connection, path, experiment)
        if old is not None and uri.startswith(f"{old}/"):
            uri = path.parent.as_uri() + uri.removeprefix(old)
    parsed = urllib.parse.urlparse(uri)
    return Path(urllib.request.url2pathname(parsed.path)) if parsed.scheme in ("", "file") else None


def _rewrite(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    """Replaces a folder at the head of a column's addresses and plain paths; one whose name only begins so stays."""
    plain = [urllib.request.url2pathname(urllib.parse.urlparse(folder).path) for folder in (old, new)]
    for before, after in ((f"{old}/", f"{new}/"), (f"{plain[0]}/", f"{plain[1]}/")):
        connection.execute(
            f"update {table} set {column} = ? || substr({column}, ?) where substr({column}, 1, ?) = ?",
            (after, len(before) + 1, len(before), before),
        )


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}


def _tags(connection: sqlite3.Connection, experiment: str) -> dict[str, str]:
    query = (
        "select t.key, t.value from experiment_tags t join experiments e on e.experiment_id = t.experiment_id "
        "where e.name = ?"
    )
    return dict(connection.execute(query, (experiment,)).fetchall())
