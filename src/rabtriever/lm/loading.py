"""Loading a language model and its tokenizer from a folder or a hub."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from rabtriever.lm.backbone import Backbone, quiet
from rabtriever.lm.gguf import dequantised
from rabtriever.lm.model_files import check_model_files, loading
from rabtriever.lm.model_source import GGUF, check_pinned, is_hub_name
from rabtriever.lm.prompt import special_ids


def load_backbone(
    source: str | Path, revision: str | None = None, dtype: str = "auto", device: str = "cpu"
) -> Backbone:
    """Loads a causal language model and its tokenizer from a local folder or, if hub access is allowed, by name.

    Args:
        source: a folder with `config.json`, a GGUF file, or a hub name such as `Qwen/Qwen2.5-0.5B`.
        revision: commit of a hub model; required for one, so that a retraining sees the same weights.
        dtype: `float32`, `bfloat16` or `float16`; `auto` for what the weights were saved as.
        device: where to put the weights.

    Raises:
        FileNotFoundError: `source` looks like a path but is not a model folder, or a part of its weights is missing.
        ValueError: a hub name without a revision, a file that cannot be read, a model without an output embedding, or
            a tokenizer with more tokens than the embedding has rows.
        ModuleNotFoundError: a GGUF file, and what reads it is not installed.
        ArtifactMismatchError: the weights are a Git LFS pointer, or cut.
    """
    quiet()
    if str(source).endswith(GGUF):
        source = dequantised(source)
    folder = Path(source)
    if (folder / "config.json").is_file():
        check_model_files(folder)
    elif is_hub_name(str(source)):
        check_pinned(str(source), revision or "")
    else:
        raise FileNotFoundError(
            f"no language model at {str(source)!r}: expected a folder with config.json, model weights and tokenizer"
        )
    kwargs: dict[str, Any] = {"revision": revision} if revision and not folder.exists() else {}
    with loading("config.json", source):
        decoder = {"is_decoder": True} if _is_bert(source, kwargs) else {}
    model = _load_model(source, dtype=dtype if dtype == "auto" else getattr(torch, dtype), **kwargs, **decoder)
    with loading("tokenizer", source):
        tokenizer = _load_tokenizer(source, kwargs)
    _check_vocabulary(source, model, tokenizer)
    return Backbone(model.to(device), tokenizer).eval()


def _check_vocabulary(source: str | Path, model: Any, tokenizer: Any) -> None:
    """Refuses a tokenizer that makes tokens of a text which have no row in the embedding or the head.

    Special tokens without a row are harmless unless the prompt's templates name them (`check_reading`): a tokenizer's
    class may add some that the model never had. Rows without a token are padding.

    Raises:
        ValueError: says how many tokens and rows there are.
    """
    last = max(set(tokenizer.get_vocab().values()) - special_ids(tokenizer), default=-1)  # ids may have gaps
    rows = min(len(ends.weight) for ends in (model.get_input_embeddings(), model.get_output_embeddings()))
    if last >= rows:
        raise ValueError(
            f"the tokenizer of {str(source)!r} has token ids up to {last}, but the model has {rows} rows of embedding "
            f"and head, expected at least {last + 1}: take the tokenizer that belongs to the weights, or enlarge them "
            "with the model's resize_token_embeddings and save it"
        )


def _load_model(source: str | Path, **kwargs: Any) -> Any:
    """The model, without a report on weights that we know to be missing or too many; any other report is printed."""
    from transformers import AutoModelForCausalLM

    logger, held = logging.getLogger("transformers.modeling_utils"), _HeldReports()
    logger.addFilter(held)
    known = False
    try:
        with loading("weights", source):
            model, found = AutoModelForCausalLM.from_pretrained(source, output_loading_info=True, **kwargs)
        if model.get_output_embeddings() is None:
            raise ValueError(
                f"model {str(source)!r} ({type(model).__name__}) has no LM head: take a causal language model"
            )
        known = _lacks_nothing_used(model, found)
    finally:
        logger.removeFilter(held)
        for record in [] if known else held.records:
            logger.handle(record)
    return model


class _HeldReports(logging.Filter):
    """Keeps back what transformers says of weights that a folder lacks, or has and the model does not."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if not any(words in record.getMessage() for words in ("LOAD REPORT", "tied weights mapping")):
            return True
        self.records.append(record)
        return False


def _lacks_nothing_used(model: Any, found: dict[str, Any]) -> bool:
    """Whether model and folder differ by nothing but parts that we never compute.

    Those are a head's transform and biases (we read its matrix alone), and the sentence heads of a BERT.
    """
    matrix = model.get_output_embeddings().weight
    ends = {name for name, weight in model.named_parameters(remove_duplicate=False) if weight is matrix}
    layers = model.base_model_prefix + "."
    missing = {key for key in found["missing_keys"] if key in ends or key.startswith(layers)}
    foreign = {key for key in found["unexpected_keys"] if not {"pooler", "seq_relationship"} & set(key.split("."))}
    return not (missing or foreign or found["mismatched_keys"] or found["error_msgs"])


def _is_bert(source: str | Path, kwargs: dict[str, Any]) -> bool:
    """A bidirectional encoder of this kind must be told to read causally."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(source, **kwargs).model_type == "bert"


def _load_tokenizer(source: str | Path, kwargs: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    own = Path(source) / "tokenizer"
    if (own / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(own)
    return AutoTokenizer.from_pretrained(source, **kwargs)
