"""A project's state in one file: store and artefacts, changed documents, settings, lock, retriever and reports.

Not in it: the data, DVC's cache, and models that only training needs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_folder, atomic_write
from rabtriever.ops import dvc_stages, local_store, tracking

FORMAT = 1
_NOTE = "rabtriever-backup.json"
_STORE, _DATABASE = Path("mlruns"), Path("mlruns/mlflow.db")
_DOCUMENTS = _STORE / local_store.DOCUMENTS
_DATABASES = (_DATABASE, _DOCUMENTS)
_FILES = (Path("params.yaml"), Path("dvc.lock"))
_FOLDERS = (Path("models/retriever"), Path("reports"))
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite puts beside a database, and would apply to another one
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError, RuntimeError)

Items = dict[Path, list[zipfile.ZipInfo]]


def backup(target: str | Path, force: bool = False) -> int:
    """Writes the state of the project in the working folder to a zip file, all of it or nothing.

    Args:
        target: the file to write.
        force: whether to replace a file that is there.

    Returns:
        number of files saved.

    Raises:
        FileExistsError: there is such a file.
        FileNotFoundError: there is no store here.
        ValueError: the store is not the one in mlruns, or the file would lie in a folder that is saved.
        BlockingIOError: a retraining is running here.
    """
    target = Path(target)
    _require_own_store()
    tracking.require()
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; name another file, or add --force to replace it")
    for folder in (_STORE, *_FOLDERS):
        if target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{target} lies in {folder}, which is saved; name a file elsewhere")
    with dvc_stages.exclusive(), atomic_write(target, "wb") as handle, _new_archive(handle) as archive:
        archive.writestr(_NOTE, json.dumps({"format": FORMAT}))
        for database in _DATABASES:  # before the artefacts: a run that is in it has its files
            if database.exists():
                _add_database(archive, database)
        for path in _saved():
            archive.write(path, path.as_posix())
        return len(archive.namelist()) - 1


def restore(source: str | Path, force: bool = False) -> int:
    """Puts the state in a backup into the working folder.

    Everything is unpacked and verified before the first file or folder takes its place. The addresses in the store
    become those of this folder.

    Args:
        source: a file that `backup` has written.
        force: whether to replace what is there and differs. Folders are replaced as a whole.

    Returns:
        number of files restored.

    Raises:
        FileExistsError: something that differs is there; nothing was changed.
        FileNotFoundError: there is no such backup.
        ArtifactMismatchError: the file is not a backup, is damaged, or names a file outside of what is saved.
        BlockingIOError: a retraining is running here.
    """
    _require_own_store()
    if not Path(source).is_file():
        raise FileNotFoundError(f"no file {source}; name one that rabtriever backup has written")
    with _told_as_damaged(source), zipfile.ZipFile(source) as archive:
        items = _items(archive)
        if not force and (there := [str(path) for path, parts in items.items() if _differs(path, parts)]):
            raise FileExistsError(f"{', '.join(there)} would be replaced; add --force if that is wanted")
        with dvc_stages.exclusive(), local_store.locked(_DATABASE):
            _unpack(archive, items)
            local_store.relocate(_DATABASE.resolve(), tracking.EXPERIMENT)
    return sum(map(len, items.values()))


@contextlib.contextmanager
def _told_as_damaged(source: str | Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        if isinstance(error, ArtifactMismatchError):
            raise
        raise ArtifactMismatchError(f"{source} is not a whole backup ({error}); take another copy of it") from error


def _require_own_store() -> None:
    uri = tracking.tracking_uri()
    if local_store.database(uri) != _DATABASE.resolve():
        raise ValueError(
            f"the store is {uri}, expected {_DATABASE} of this folder; save another store where it is kept"
        )


def _new_archive(handle: object) -> zipfile.ZipFile:
    return zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED, compresslevel=1, strict_timestamps=False)


def _add_database(archive: zipfile.ZipFile, database: Path) -> None:
    """Adds a database as it is at one moment, also while somebody writes it."""
    with tempfile.TemporaryDirectory(dir=_STORE, prefix=".backup.tmp-") as scratch:
        copy = Path(scratch, database.name)
        with contextlib.closing(sqlite3.connect(copy)) as to, local_store.reading(database) as store:
            store.backup(to)
        archive.write(copy, database.as_posix())


def _saved() -> Iterator[Path]:
    """Files to save beside the database; links to folders are followed."""
    yield from (path for path in _FILES if path.is_file())
    roots = [path for path in sorted(_STORE.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    for root in (*roots, *_FOLDERS):
        for folder, _, names in os.walk(root, followlinks=True):
            yield from (Path(folder, name) for name in sorted(names))


def _items(archive: zipfile.ZipFile) -> Items:
    """The files and folders that a backup replaces, each with its parts; the database is first.

    Raises:
        ArtifactMismatchError: it is not a backup, or one of its names leads elsewhere.
    """
    found = json.loads(archive.read(_NOTE))["format"]
    if found != FORMAT:
        raise ArtifactMismatchError(
            f"the backup has format {found!r}, expected {FORMAT}; restore it with the version that made it"
        )
    items: Items = {_DATABASE: []}
    names = set()
    for part in archive.infolist():
        if part.filename == _NOTE:
            continue
        item = _item(PurePosixPath(part.filename))
        if item is None or part.filename != PurePosixPath(part.filename).as_posix() or part.filename in names:
            raise ArtifactMismatchError(f"the backup names {part.filename!r}, which is not saved; do not trust it")
        names.add(part.filename)
        items.setdefault(item, []).append(part)
    if not items[_DATABASE]:
        raise ArtifactMismatchError(f"the backup has no {_DATABASE}; take another one")
    return items


def _item(name: PurePosixPath) -> Path | None:
    """The file or folder that takes its place as a whole; None for a name that `backup` would not write."""
    path = Path(name)
    if name.is_absolute() or ".." in name.parts or "\\" in str(name):
        return None
    if path in _DATABASES or path in _FILES:
        return path
    if name.parts[:1] == _STORE.parts and len(name.parts) > 2 and not name.parts[1].startswith((".", _DATABASE.name)):
        return Path(*name.parts[:2])
    return next((folder for folder in _FOLDERS if folder in path.parents), None)


def _differs(item: Path, parts: list[zipfile.ZipInfo]) -> bool:
    """Whether something else than a backup's parts is in their place."""
    if not item.exists():
        return False
    there = [item] if item.is_file() else [path for path in item.rglob("*") if path.is_file()]
    if not there:
        return False
    found = {path.as_posix(): zlib.crc32(path.read_bytes()) for path in there}
    return found != {part.filename: part.CRC for part in parts}


def _unpack(archive: zipfile.ZipFile, items: Items) -> None:
    """Writes all parts beside their places, then moves them in; the database last, as the others change nothing alone.

    Reading a part verifies its checksum.
    """
    with contextlib.ExitStack() as stack:
        for item, parts in items.items():
            if parts[0].filename != item.as_posix():
                folder = stack.enter_context(atomic_folder(item))
                for part in parts:
                    target = folder / Path(part.filename).relative_to(item)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(part) as stream, open(target, "wb") as file:
                        shutil.copyfileobj(stream, file)
                continue
            file = stack.enter_context(atomic_write(item, "wb"))
            with archive.open(parts[0]) as stream:
                shutil.copyfileobj(stream, file)
            if item in _DATABASES:
                stack.push(partial(_remove_beside, item))


def _remove_beside(
    database: Path, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
) -> None:
    """Removes what SQLite left beside a database that is about to be replaced; nothing after an error."""
    if kind is None:
        for ending in _BESIDE:
            Path(f"{database}{ending}").unlink(missing_ok=True)
