"""GGUF: a quantised model in one file, dequantised once into an ordinary folder that everything else reads.

The folder has float32 weights as safetensors, `config.json`, and the tokenizer in `tokenizer/`. transformers reads the
file, with the package `gguf`. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from rabtriever.core.artifacts import atomic_folder, content_hash, recover_folder
from rabtriever.core.progress import at_work
from rabtriever.lm.backbone import Backbone, quiet
from rabtriever.lm.model_source import check_gguf

CACHE = Path(".cache/gguf")
_FAULTS = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RuntimeError)
# what `tokenizer.ggml.pre` calls the way of splitting that transformers falls back to
_LIKE_GPT2 = {"default", "gpt-2"}


def dequantised(path: str | Path, cache: str | Path = CACHE) -> Path:
    """The Hugging Face folder of a GGUF file, made at the first call and kept under the hash of the file's bytes.

    Args:
        path: a file with all weights and the tokenizer of a model.
        cache: where the folders are kept; each takes four bytes a weight.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the package `gguf` or `accelerate` is not installed.
        ValueError: the file is broken or cut off, lacks weights, or has an architecture unknown to transformers.
    """
    path = Path(path)
    check_gguf(path)
    folder = Path(cache) / content_hash(path)[:16]
    recover_folder(folder)
    if not (folder / "config.json").is_file():
        print(f"backbone: dequantising {path.name} into {folder}, once", flush=True)
        with at_work(f"backbone: dequantising {path.name}"), atomic_folder(folder) as target:
            _convert(path).save(target)
    return folder


def _convert(path: Path) -> Backbone:
    fields = _fields(path)
    try:
        model, tokenizer = _load(path)
        plain = _plain(model)
    except (*_FAULTS, NotImplementedError) as error:
        import transformers

        raise ValueError(
            f"{path}, of architecture {fields.get('general.architecture')!r}, is not what transformers "
            f"{transformers.__version__} can read ({error}); take a file with all weights of a supported architecture, "
            "such as llama or qwen2, or a Hugging Face folder"
        ) from error
    _split_as_trained(tokenizer, fields, path)
    return Backbone(plain, tokenizer)


def _fields(path: Path) -> dict[str, str]:
    """The file's settings that are texts, by name, once its header and the extent of every tensor are as they must be.

    Raises:
        ValueError: the file is broken or cut off.
    """
    from gguf import GGUFReader, GGUFValueType

    try:
        fields = GGUFReader(path).fields  # maps each tensor, which fails where the file ends before it
        texts = {name: field.contents() for name, field in fields.items() if field.types == [GGUFValueType.STRING]}
    except (*_FAULTS, MemoryError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is broken or cut off ({error}), expected a whole GGUF file; "
            "copy or download it again"
        ) from error
    return texts


def _load(path: Path) -> tuple[Any, Any]:
    """Model and tokenizer as transformers makes them.

    Raises:
        ValueError: the file lacks weights that its architecture has.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": path.name, "local_files_only": True}
    with _no_bars():
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        model, found = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, output_loading_info=True, **where
        )
    if lacking := sorted(found["missing_keys"]) + sorted(map(str, found["mismatched_keys"])):
        raise ValueError(f"{len(lacking)} of its weights are missing or of another shape, such as {lacking[0]}")
    return model, tokenizer


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Hides the bar over a file's tensors, which transformers' own switch does not reach."""
    from tqdm.auto import tqdm

    quiet()
    own, tqdm.__init__ = tqdm.__init__, functools.partialmethod(tqdm.__init__, disable=True)
    try:
        yield
    finally:
        tqdm.__init__ = own


def _plain(model: Any) -> Any:
    """The same weights in a model that does not remember having been quantised, which could not be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain


def _split_as_trained(tokenizer: Any, fields: dict[str, str], path: Path) -> None:
    """Gives a byte-level tokenizer the way of splitting text that `tokenizer.ggml.pre` names and transformers lacks.

    transformers takes GPT-2's way where it does not know the name, without a word.
    """
    from tokenizers import pre_tokenizers

    name, backend = fields.get("tokenizer.ggml.pre"), tokenizer.backend_tokenizer
    if fields.get("tokenizer.ggml.model") != "gpt2" or not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return  # not of this kind, or transformers knew it
    if name == "smollm":
        digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    elif name not in _LIKE_GPT2:
        warnings.warn(
            f"{path.name} splits text as {name!r} says, which is not known here. GPT-2's way is taken instead, so some "
            "texts become other tokens than the model was trained with",
            stacklevel=2,
        )
