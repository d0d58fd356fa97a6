"""Files of tensors that cannot be read, told with their name before a library meets them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import ArtifactMismatchError

_POINTER = b"version https://git-lfs"  # how the file begins that stands for one in Git LFS


def is_pointer(path: Path) -> bool:
    """Whether a file is the pointer that Git LFS leaves where a file was not fetched."""
    with open(path, "rb") as handle:
        return handle.read(len(_POINTER)) == _POINTER


def tensor_file(path: str | Path) -> Path:
    """The path of a safetensors file, after checking that it is whole; its values are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ArtifactMismatchError: it is a Git LFS pointer, is cut, or holds something else.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}, expected tensors; copy it there, or make its folder again")
    if is_pointer(path):
        raise ArtifactMismatchError(
            f"{path} is a Git LFS pointer, expected the tensors themselves; run `git lfs pull` in its repository"
        )
    try:
        with safe_open(path, framework="numpy"):
            return path
    except SafetensorError as error:
        raise ArtifactMismatchError(
            f"{path} of {path.stat().st_size:,} bytes is cut or not a safetensors file ({error}); "
            "copy or download it again, or run the stage that writes it"
        ) from error


def restore(module: Any, tensors: Mapping[str, Any], path: str | Path) -> None:
    """Sets the weights of a torch module to those that were read from a path.

    Raises:
        ArtifactMismatchError: names or shapes are not those of the module.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise ArtifactMismatchError(
            f"{path} has other tensors than this code expects ({' '.join(str(error).split())}); "
            "open it with the code that wrote it, or run the stage that writes it again"
        ) from error
