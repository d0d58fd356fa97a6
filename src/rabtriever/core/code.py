"""What the code means: an identity of each room and flow, without comments, docstrings and layout.

`python -m rabtriever.core.code` is the pipeline's first stage. It writes each identity to a small file, and the other
stages depend on those files. So an edit that changes no meaning makes no stage stale.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_write, read_json, write_json

STAGE = "code"
FOLDER = Path(".cache/code")  # the stage's output
_KNOWN = Path(".cache/code_meanings.json")  # of files read before; outside of FOLDER, which DVC removes first
_PACKAGE = Path(__file__).resolve().parent.parent
_FLOWS = Path("flows")
_COMPILED = "__pycache__"


def file_of(name: str) -> Path:
    """Returns the file that holds the identity of a name that `identities` knows."""
    return FOLDER / f"{name}.txt"


def write_identities() -> None:
    """Writes the identities to their files; one that holds its identity already is left alone.

    Raises:
        ArtifactMismatchError: a file that ends in .py is not Python.
    """
    for name, identity in identities().items():
        path, text = file_of(name), f"{identity}\n"
        if not path.is_file() or path.read_text() != text:
            with atomic_write(path) as file:
                file.write(text)


def identities() -> dict[str, str]:
    """Returns the identities (64 hex digits) of the package, of its rooms, and of the flows in the working folder.

    Names are `rabtriever`, `rabtriever/ROOM` and `flows/STAGE`.

    Raises:
        ArtifactMismatchError: a file that ends in .py is not Python.
    """
    package, flows = _files(_PACKAGE), sorted(_FLOWS.glob("*.py"))
    meanings = _meanings([*package, *flows])
    found = {_PACKAGE.name: combined(_PACKAGE, package, meanings.__getitem__)}
    for room in sorted(marker.parent for marker in _PACKAGE.glob("*/__init__.py")):
        inside = [path for path in package if path.is_relative_to(room)]
        found[f"{_PACKAGE.name}/{room.name}"] = combined(_PACKAGE, inside, meanings.__getitem__)
    return found | {f"{_FLOWS}/{path.stem}": combined(_FLOWS, [path], meanings.__getitem__) for path in flows}


def package_identity() -> str:
    """Returns the identity of the package alone, see `identities`."""
    return identities()[_PACKAGE.name]


def combined(root: Path, files: Iterable[Path], identify: Callable[[Path], str]) -> str:
    """Returns the sha256 (64 hex digits) of the names of files below a folder and of what identifies each."""
    pairs = sorted((path.relative_to(root).as_posix(), identify(path)) for path in files)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def meaning(path: Path) -> str:
    """Returns the sha256 of a Python file without comments, docstrings and layout; alike in each version of Python.

    Raises:
        ArtifactMismatchError: the file is not Python.
    """
    try:
        tree = ast.parse(path.read_bytes())
        return hashlib.sha256(repr(_shape(tree)).encode()).hexdigest()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ArtifactMismatchError(
            f"{path} is not Python ({type(error).__name__}: {error}); correct or remove it"
        ) from error


def _shape(node: Any) -> Any:
    """Returns a syntax tree as nested tuples, without what is empty and without statements that are a constant."""
    if isinstance(node, ast.JoinedStr):  # some releases of Python put empty texts between its parts
        node = ast.JoinedStr([part for part in node.values if not _is_constant(part) or part.value])
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind"))
        kept = tuple((name, _shape(value)) for name, value in fields if value is not None and value != [])
        return type(node).__name__, kept
    if isinstance(node, list):
        return [_shape(part) for part in node if not (isinstance(part, ast.Expr) and _is_constant(part.value))]
    return repr(node)


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant)


def _files(folder: Path) -> list[Path]:
    """All that is part of the code: no hidden files, and nothing of what Python and numba have compiled."""
    found = ((path, path.relative_to(folder).parts) for path in folder.rglob("*"))
    kept = (path for path, parts in found if not any(part.startswith(".") or part == _COMPILED for part in parts))
    return [path for path in kept if path.is_file()]


def _meanings(files: Iterable[Path]) -> dict[Path, str]:
    """The meaning of each Python file, the sha256 of the bytes of each other one.

    Reading code takes seconds, so what equal bytes meant is remembered, until this module changes.
    """
    definition, known = hashlib.sha256(Path(__file__).read_bytes()), _read_known()
    used, found = {}, {}
    for path in files:
        content = path.read_bytes()
        if path.suffix != ".py":
            found[path] = hashlib.sha256(content).hexdigest()
            continue
        digest = definition.copy()
        digest.update(content)
        found[path] = used[digest.hexdigest()] = known.get(digest.hexdigest()) or meaning(path)
    if used != known:
        write_json(_KNOWN, used)
    return found


def _read_known() -> dict[str, str]:
    """What is remembered; nothing of a file that is absent or damaged."""
    try:
        return dict(read_json(_KNOWN))
    except (OSError, ArtifactMismatchError, ValueError, TypeError):
        return {}


if __name__ == "__main__":
    try:
        write_identities()
    except ArtifactMismatchError as error:
        sys.exit(f"code: {error}")
