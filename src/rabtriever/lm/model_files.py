"""The files of a language model's folder, checked before the model libraries read them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rabtriever.core.tensors import is_pointer, tensor_file

_WEIGHTS, _PICKLED = "model.safetensors", "pytorch_model.bin"
_MODEL = ("config.json", "generation_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARY = ("vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_COPY = "download or copy it again"


def check_model_files(folder: str | Path) -> None:
    """Refuses a model folder with a file that its loading would fail on, or take for another one.

    Values are not looked at: a whole file of wrong content is left to the model library.

    Raises:
        FileNotFoundError: a part of the weights, named in their index, is missing.
        ValueError: a file is a Git LFS pointer, or is not JSON where it should be.
        ArtifactMismatchError: weights are a Git LFS pointer, or cut.
    """
    folder = Path(folder)
    own = folder / "tokenizer"
    tokenizer = own if (own / "tokenizer.json").is_file() else folder
    for path in [folder / name for name in _MODEL] + [tokenizer / name for name in _TOKENIZER]:
        if path.is_file():
            _json(path)
    if not (tokenizer / "tokenizer.json").is_file():
        for path in filter(Path.is_file, (folder / name for name in _VOCABULARY)):
            _check_fetched(path)
    _check_weights(folder)


@contextlib.contextmanager
def loading(what: str, source: str | Path) -> Iterator[None]:
    """Tells which part of which model could not be loaded, where a library fails within the block.

    Raises:
        ValueError: the library failed for another reason than the system, the memory or a missing package.
    """
    try:
        yield
    except Exception as error:
        if _speaks_for_itself(error):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"the {what} of {str(source)!r} could not be loaded ({type(error).__name__}: {first}): expected files of "
            "one causal language model as transformers writes them; correct them, or download or copy them again"
        ) from error


def _speaks_for_itself(error: Exception) -> bool:
    """Whether an error is no fault of the files, or names a file or a server."""
    if isinstance(error, OSError):
        return error.errno is None or error.filename is not None  # without a number, it is a sentence of transformers
    return isinstance(error, (ImportError, MemoryError)) or type(error).__name__ == "OutOfMemoryError"


def _check_fetched(path: Path) -> None:
    if is_pointer(path):
        raise ValueError(
            f"{path} is a Git LFS pointer, expected the file itself; run `git lfs pull` in its repository, or {_COPY}"
        )


def _json(path: Path) -> dict[str, Any]:
    """The names and values that a file holds."""
    _check_fetched(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); {_COPY}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, expected names with values; {_COPY}")
    return found


def _check_weights(folder: Path) -> None:
    """Checks the weights that are read: one file before parts of them, safetensors before pickled ones."""
    for name, check in ((_WEIGHTS, tensor_file), (_PICKLED, _check_fetched)):
        whole, index = folder / name, folder / f"{name}.index.json"
        if whole.is_file() or index.is_file():
            for path in [whole] if whole.is_file() else _parts(index):
                check(path)
            return


def _parts(index: Path) -> list[Path]:
    """The files that an index of weights names."""
    named = _json(index).get("weight_map")
    if not isinstance(named, dict) or not all(isinstance(part, str) for part in named.values()):
        raise ValueError(f"{index} has no weight_map, expected the file of each weight; {_COPY}")
    parts = [index.parent / name for name in sorted(set(named.values()))]
    if missing := [part for part in parts if not part.is_file()]:
        raise FileNotFoundError(f"{index} names {missing[0].name}, which is missing; download or copy it there")
    return parts
