"""Artefacts on disk: atomic writes, content hashes and manifests that name their parents.

Owns how a stage's output appears (all of it or nothing of it, also after a kill or a full disk) and how the next
stage makes sure it was given the output it expects. Knows nothing of what the files mean.

Files whose names start with a dot are not part of an artefact: temporary files and what editors leave behind neither
change a hash nor fail a check.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

MANIFEST_NAME = "manifest.json"
CARD = "MODEL_CARD.md"  # what people read of an artefact
_COUNTER = itertools.count()
_LIVE: set[Path] = set()


class ArtifactMismatchError(RuntimeError):
    """An artefact is not the one expected: damaged, of another kind, or made from other parents."""


@dataclass(frozen=True)
class Manifest:
    """What an artefact folder is and what it was made from.

    Attributes:
        kind: What the folder holds, such as "data" or "retriever".
        hash: The artefact's identity: the content hash of its files (64 hex digits).
        parents: Hash of each artefact this one was made from, by name.
        info: Facts about the content that loading needs (counts, sizes, settings).
        files: "sha256" and "bytes" of each file, by path relative to the folder.
    """

    kind: str
    hash: str
    parents: dict[str, str]
    info: dict[str, Any]
    files: dict[str, dict[str, Any]]


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A handle whose content becomes `path` only when the block ends without an error.

    Args:
        path: The file to write; its folder is made when missing.
        mode: "w" for UTF-8 text with Unix line ends, "wb" for bytes.

    Raises:
        ValueError: If `mode` is neither.
        OSError: If writing fails (disk full); the file that was there is untouched.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_write got mode {mode!r}; expected 'w' or 'wb'")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    text = {"encoding": "utf-8", "newline": "\n"} if mode == "w" else {}
    with _temporary(path) as temporary:
        with open(temporary, mode, **text) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """An empty temporary folder that takes the place of `path` when the block ends without an error.

    The folder that was there stays usable until then and is removed only afterwards. Files are not synced one by one:
    after a power cut the manifest tells a damaged file from a good one.

    Raises:
        NotADirectoryError: If `path` is a file.
        OSError: If writing fails (disk full); the folder that was there is untouched.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, expected a folder or nothing; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    recover_folder(path)
    _remove_stale(path)
    with _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        _swap(temporary, path)


def recover_folder(path: str | Path) -> None:
    """Puts the old folder back if a run was killed between moving it aside and moving the new one in."""
    path, aside = Path(path), _aside(Path(path))
    if aside.is_dir() and not path.exists():
        try:
            aside.rename(path)
        except OSError:
            if not path.exists():  # else no run was killed: it has moved the new folder in meanwhile
                raise


def _swap(new: Path, path: Path) -> None:
    """Moves `new` to `path`; the old folder steps aside first, as a rename replaces only an empty folder."""
    aside = _aside(path)
    _remove(aside)
    while path.exists():
        _remove(aside)  # of another writer, in a further turn
        path.rename(aside)
        try:
            new.rename(path)
        except BaseException as error:
            if isinstance(error, OSError) and path.exists():
                continue  # a reader took this run for a killed one and has put the old folder back
            aside.rename(path)
            raise
        _remove(aside)
        return
    new.rename(path)


def _aside(path: Path) -> Path:
    return path.parent / f".{path.name}.old"


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` (same file system, so that a rename is atomic) that is gone after the block."""
    temporary = path.parent / f".{path.name}.tmp-{os.getpid()}-{next(_COUNTER)}"
    _LIVE.add(temporary)
    try:
        _remove(temporary)  # of an earlier process with this one's id
        yield temporary
    finally:
        _remove(temporary)
        _LIVE.discard(temporary)


def _remove_stale(path: Path) -> None:
    """Removes what killed runs left beside `path`; what a running process is writing stays."""
    for found in path.parent.glob(f".{path.name}.tmp-*-*"):
        process = found.name.removeprefix(f".{path.name}.tmp-").split("-")[0]
        if process.isdigit() and found not in _LIVE and (int(process) == os.getpid() or not _is_running(int(process))):
            _remove(found)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: str | Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinity are refused.

    Raises:
        ValueError: If a number is NaN or infinite.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as handle:
        handle.write(text + "\n")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: If there is no such file.
        ArtifactMismatchError: If it is not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; run the stage that writes it (make run, or dvc repro)")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactMismatchError(f"{path} is not JSON ({error}); run the stage that writes it again") from error


def content_hash(path: str | Path) -> str:
    """Sha256 (64 hex digits) of a file's bytes, or of the names and bytes of a folder's files, its manifest excluded.

    Raises:
        FileNotFoundError: If there is neither a file nor a folder.
    """
    path = Path(path)
    if path.is_dir():
        return _combined(_file_records(path))
    if not path.is_file():
        raise FileNotFoundError(f"no file or folder {path}, expected one to hash")
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _file_records(folder: Path) -> dict[str, dict[str, Any]]:
    records = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not hidden and relative.as_posix() != MANIFEST_NAME:
            records[relative.as_posix()] = {"sha256": content_hash(path), "bytes": path.stat().st_size}
    return records


def _combined(records: Mapping[str, Mapping[str, Any]]) -> str:
    pairs = sorted((name, record["sha256"]) for name, record in records.items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def write_manifest(folder: str | Path, kind: str, parents: Mapping[str, str], info: Mapping[str, Any]) -> Manifest:
    """The manifest of the finished files in `folder`, also written there as manifest.json.

    Nothing that differs between equal runs (time, host, run id) may be put in: equal inputs must give equal bytes.
    """
    records = _file_records(Path(folder))
    manifest = Manifest(kind, _combined(records), dict(sorted(parents.items())), dict(info), records)
    write_json(Path(folder) / MANIFEST_NAME, vars(manifest))
    return manifest


def read_manifest(folder: str | Path, kind: str, verify: bool = True) -> Manifest:
    """The manifest of `folder`.

    Args:
        folder: An artefact folder.
        kind: The kind it must be of.
        verify: Whether to compare each file's size and sha256 with the manifest.

    Raises:
        FileNotFoundError: If the folder or its manifest is missing.
        ArtifactMismatchError: If the kind differs, or a file is missing, changed or not listed.
    """
    folder = Path(folder)
    recover_folder(folder)
    path = folder / MANIFEST_NAME
    if not path.is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}; expected a {kind!r} artefact; run dvc repro")
    try:
        manifest = Manifest(**read_json(path))
        _check_form(manifest)
    except (TypeError, KeyError) as error:
        raise ArtifactMismatchError(f"{path} is not a manifest ({error}); run its stage again") from error
    if manifest.kind != kind:
        raise ArtifactMismatchError(
            f"{folder} is a {manifest.kind!r} artefact, expected {kind!r}; name the right folder"
        )
    if verify:
        _verify(folder, manifest)
    return manifest


def _check_form(manifest: Manifest) -> None:
    """Raises a TypeError or KeyError where a part is not what `write_manifest` writes."""
    for name in ("parents", "info", "files"):
        if not isinstance(getattr(manifest, name), dict):
            raise TypeError(f"{name} is {getattr(manifest, name)!r}, expected names with values")
    for record in manifest.files.values():
        int(record["bytes"]), str(record["sha256"])


def _verify(folder: Path, manifest: Manifest) -> None:
    advice = "the folder was changed after it was written; run the stage that writes it again"
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactMismatchError(f"{path} is missing, but listed in {MANIFEST_NAME}; {advice}")
        if path.stat().st_size != record["bytes"]:
            raise ArtifactMismatchError(f"{path} has {path.stat().st_size} bytes, expected {record['bytes']}; {advice}")
    found = _file_records(folder)
    for name, record in found.items():
        if name not in manifest.files:
            raise ArtifactMismatchError(f"{folder / name} is not listed in {MANIFEST_NAME}; {advice}")
        if record["sha256"] != manifest.files[name]["sha256"]:
            expected = manifest.files[name]["sha256"]
            raise ArtifactMismatchError(f"{folder / name} has sha256 {record['sha256']}, expected {expected}; {advice}")
    if (combined := _combined(found)) != manifest.hash:
        raise ArtifactMismatchError(f"{folder} has hash {combined}, its manifest says {manifest.hash}; {advice}")


def check_parent(manifest: Manifest, name: str, expected_hash: str) -> None:
    """Makes sure that an artefact was made from the given parent.

    Raises:
        ArtifactMismatchError: If it names no such parent, or another one.
    """
    found = manifest.parents.get(name)
    if found is None:
        named = ", ".join(manifest.parents) or "none"
        raise ArtifactMismatchError(
            f"the {manifest.kind!r} artefact names no parent {name!r} (but {named}); make it again"
        )
    if found != expected_hash:
        raise ArtifactMismatchError(
            f"the {manifest.kind!r} artefact was made from {name} {found[:12]}, but {name} here is "
            f"{expected_hash[:12]}; run dvc repro, so that both are of one run"
        )
