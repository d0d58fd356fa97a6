"""The language model: loaded or built, its states, and the difference of its two answer rows.

A folder written here is an ordinary Hugging Face folder (`config.json`, `model.safetensors`) with the tokenizer in
`tokenizer/`. The tokenizer has a folder of its own because `AutoTokenizer`, finding a Qwen2 `config.json` beside it,
silently replaces a custom vocabulary's tokenizer class and so its ids.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.document_terms import ScoreWeights
from rabtriever.padding import (
    groups_by_length,
    in_order,
    last_states,
    mean_states,
    pad,
    price_of_a_pass,
    segment_mask,
    widened,
)
from rabtriever.params import bounded
from rabtriever.progress import track
from rabtriever.sources import check_pinned, is_hub_name

END = "<|end|>"


@dataclass(frozen=True)
class SmallModelParams:
    """Shape of the small Qwen2 model built from scratch (section `small_model` of params.yaml)."""

    vocabulary: int = bounded(ge=300)
    width: int = bounded(ge=8)
    layers: int = bounded(ge=1)
    heads: int = bounded(ge=1)
    feed_forward: int = bounded(ge=8)
    context: int = bounded(ge=16)


class Backbone(nn.Module):
    """A causal language model seen as layers and head.

    Args:
        model: any `AutoModelForCausalLM` with an output embedding.
        tokenizer: its tokenizer.

    Attributes:
        reference: computes as a model in training does although it is not: what one in training is compared with.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.reference = False
        self.model = model
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """Size of a state, H."""
        return int(self.head_weight.shape[1])

    @property
    def context(self) -> int:
        """Longest input in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", None) or 1_000_000)

    @property
    def head_weight(self) -> Tensor:
        """The LM head, (V, H)."""
        return self.model.get_output_embeddings().weight

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The matrices of the layers: every one but the embedding and the head."""
        ends = {id(self.model.get_input_embeddings().weight), id(self.head_weight)}
        return [p for p in self.model.parameters() if p.ndim == 2 and id(p) not in ends]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.head_weight.device

    @property
    def pooling(self) -> str:
        """How the state of a segment encoded alone is made: `last` token (the paper), or `mean` over its tokens."""
        return self._settings.get("pooling", "last")

    @property
    def attention(self) -> str:
        """What a token sees: `causal`, itself and all before it; `segment`, the rest of its own segment as well."""
        return self._settings.get("attention", "causal")

    @property
    def weights(self) -> ScoreWeights:
        """Of the terms of the teacher's score."""
        found = {name: float(self._settings[name]) for name in ScoreWeights._fields if name in self._settings}
        return ScoreWeights(**found)

    def configure(self, **settings: Any) -> None:
        """Sets `pooling`, `attention` or weights of the score, kept in the `config.json` of a saved folder.

        Raises:
            ValueError: attention within segments, and a kernel that takes no mask of ours.
        """
        kernel = getattr(self.model.config, "_attn_implementation", None)
        if settings.get("attention") == "segment" and kernel != "sdpa":
            raise ValueError(f"attention within segments needs the kernel sdpa, and the model has {kernel}: load it so")
        self.model.config.rabtriever = {**self._settings, **settings}

    @property
    def _settings(self) -> dict[str, Any]:
        return getattr(self.model.config, "rabtriever", None) or {}

    @property
    def decoder(self) -> Any:
        """The layers and the final norm, without the head."""
        return getattr(self.model, self.model.base_model_prefix)

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (..., V) of states (..., H): the head alone, without bias or head transform."""
        return states @ self.head_weight.T.to(states.dtype)

    def read(self, ids: Tensor, mask: Tensor, first: Tensor | None = None, **how: Any) -> tuple[Tensor, Any]:
        """Runs the layers. Every state leaves the model here, in float32 whatever its weights are.

        Args:
            ids: (B, T) token ids.
            mask: (B, T), or with the cached tokens before them (B, cached + T).
            first: (B,) tokens of the first segment where `ids` holds two; None where it holds one.
            how: what else the layers are told: `use_cache`, `past_key_values`, `position_ids`.

        Returns:
            States after the final norm, (B, T, H), and the cache of keys and values, None without `use_cache`.
        """
        if self.attention == "segment":
            mask = segment_mask(mask, ids.shape[1], first)
        with self._mixed_precision():
            output = self.decoder(input_ids=ids, attention_mask=mask, **how)
        return output.last_hidden_state.float(), output.get("past_key_values")

    def _mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 arithmetic for the layers alone, when training on a GPU that has it: no loss is computed in it."""
        if (self.training or self.reference) and self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def states(self, ids: Tensor, mask: Tensor, first: Tensor | None = None) -> Tensor:
        """States after the final norm, (B, T, H), of right-padded ids (B, T) with mask (B, T); see `read`.

        Rows are read in groups of like length (padding.py); states of padding are arbitrary.
        """
        groups, parts = self.groups(mask), []
        for rows, longest in groups:
            group = ids[rows, :longest], mask[rows, :longest], None if first is None else first[rows]
            parts.append(widened(self.read(*group, use_cache=False)[0], ids.shape[1]))
        return in_order(parts, groups)

    def groups(self, mask: Tensor) -> list[tuple[Tensor, int]]:
        """Rows that are read in one pass each, as `groups_by_length` has them."""
        return groups_by_length(mask, price_of_a_pass(mask.device, self._size))

    @functools.cached_property
    def _size(self) -> int:
        """Parameters of the model; counted once, as it is asked for with every query."""
        return int(self.model.num_parameters())

    def segment_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The state of each right-padded segment encoded alone, (B, H)."""
        return self.pool(self.states(ids, mask), mask)

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """One state of each segment, (B, H), from the states of its tokens (B, T, H)."""
        return mean_states(states, mask) if self.pooling == "mean" else last_states(states, mask)

    def save(self, folder: str | Path) -> None:
        """Writes model and tokenizer below `folder` as safetensors and JSON."""
        _quiet()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    @torch.no_grad()
    def encode(self, sequences: Sequence[Sequence[int]], batch_size: int, label: str | None = None) -> np.ndarray:
        """States of token sequences encoded alone, (N, H) float32, in the order given.

        Sequences are batched by length, which costs nothing in accuracy: padding never changes a state (tested).

        Args:
            sequences: N non-empty lists of token ids.
            batch_size: sequences in one forward pass.
            label: what the progress line says; no progress when None.
        """
        was_training = self.training
        self.eval()
        order = np.argsort([len(s) for s in sequences], kind="stable")
        states = np.empty((len(sequences), self.width), dtype=np.float32)
        for start in track(range(0, len(order), batch_size), label):
            rows = order[start : start + batch_size]
            ids, mask = pad([sequences[row] for row in rows], self.device)
            states[rows] = self.segment_states(ids, mask).cpu().numpy()
        self.train(was_training)
        return states


def default_device() -> str:
    """`cuda` where there is one, else `cpu`.

    The first call turns on a GPU's matrix units for float32 products (TF32): some times faster, and no state differs by
    more than bfloat16 weights would make it. Where scores are compared to the last digit, see `scorer.exact_products`.
    """
    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    return "cuda"


def load_backbone(
    source: str | Path, revision: str | None = None, dtype: str = "auto", device: str = "cpu"
) -> Backbone:
    """Loads a causal language model and its tokenizer from a local folder or, if hub access is allowed, by name.

    Args:
        source: a folder with `config.json`, or a hub name such as `Qwen/Qwen2.5-0.5B`.
        revision: commit of a hub model; required for one, so that a retraining sees the same weights.
        dtype: `float32`, `bfloat16` or `float16`; `auto` for what the weights were saved as.
        device: where to put the weights.

    Raises:
        FileNotFoundError: `source` looks like a path but is no model folder.
        ValueError: a hub name without a revision, or a model without an output embedding or tokenizer.
    """
    _quiet()
    folder = Path(source)
    if not (folder / "config.json").is_file():
        if not is_hub_name(str(source)):
            raise FileNotFoundError(
                f"no language model at {str(source)!r}: expected a folder with config.json, model weights and tokenizer"
            )
        check_pinned(str(source), revision or "")
    kwargs: dict[str, Any] = {"revision": revision} if revision and not folder.exists() else {}
    decoder = {"is_decoder": True} if _is_bert(source, kwargs) else {}
    model = _load_model(source, dtype=dtype if dtype == "auto" else getattr(torch, dtype), **kwargs, **decoder)
    return Backbone(model.to(device), _load_tokenizer(source, kwargs)).eval()


def _load_model(source: str | Path, **kwargs: Any) -> Any:
    """The model, without a report on weights that we know to be missing or too many; any other report is printed."""
    from transformers import AutoModelForCausalLM

    logger, held = logging.getLogger("transformers.modeling_utils"), _HeldReports()
    logger.addFilter(held)
    known = False
    try:
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


def _quiet() -> None:
    """Bars over the one shard of a small model say nothing to the reader of a pipeline's log."""
    from transformers.utils import logging

    logging.disable_progress_bar()


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


def build_tokenizer(texts: Iterable[str], vocabulary: int, answers: Sequence[str]) -> Any:
    """Trains a byte-level BPE tokenizer; every answer word is one token of it.

    Args:
        texts: training text, the filled prompts.
        vocabulary: number of tokens at the most; small corpora give fewer.
        answers: answer words with their leading space.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(answers),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    missing = [word for word in answers if len(tokenizer.encode(word).ids) != 1]
    tokenizer.add_tokens([AddedToken(word, normalized=False, single_word=False) for word in missing])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def build_small_model(params: SmallModelParams, vocabulary: int, seed: int) -> Any:
    """A randomly initialised Qwen2-shaped causal LM with tied embeddings.

    Raises:
        ValueError: a width that the heads do not divide into an even head size.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if params.width % (2 * params.heads):
        raise ValueError(
            f"small_model.width {params.width} must be a multiple of twice small_model.heads ({params.heads})"
        )
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=params.width,
        intermediate_size=params.feed_forward,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)
