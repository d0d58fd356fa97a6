"""A causal language model as layers and head: its hidden states, and the embeddings of texts encoded alone.

A folder written here is an ordinary Hugging Face folder (`config.json`, `model.safetensors`) with the tokenizer in
`tokenizer/`. The tokenizer has a folder of its own because `AutoTokenizer`, finding a Qwen2 `config.json` beside it,
silently replaces a custom vocabulary's tokenizer class and so its ids.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.core.progress import track
from rabtriever.lm.padding import (
    groups_by_length,
    in_order,
    last_states,
    mean_states,
    pad,
    price_of_a_pass,
    segment_mask,
    widened,
)


class Backbone(nn.Module):
    """A causal language model seen as layers and head.

    Args:
        model: any `AutoModelForCausalLM` with an output embedding.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer

    @property
    def width(self) -> int:
        """Size of a hidden state, H."""
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
        """How a segment's embedding is made of hidden states: of its `last` token (the paper), or their `mean`."""
        return self.settings.get("pooling", "last")

    @property
    def attention(self) -> str:
        """What a token sees: `causal`, itself and all before it; `segment`, the rest of its own segment as well."""
        return self.settings.get("attention", "causal")

    def configure(self, **settings: Any) -> None:
        """Sets `pooling`, `attention` or weights of the score, kept in the `config.json` of a saved folder.

        Raises:
            ValueError: attention within segments, and a kernel that takes no mask of ours.
        """
        kernel = getattr(self.model.config, "_attn_implementation", None)
        if settings.get("attention") == "segment" and kernel != "sdpa":
            raise ValueError(f"attention within segments needs the kernel sdpa, and the model has {kernel}: load it so")
        self.model.config.rabtriever = {**self.settings, **settings}

    @property
    def settings(self) -> dict[str, Any]:
        """What `configure` was given, as a saved folder's `config.json` has it."""
        return getattr(self.model.config, "rabtriever", None) or {}

    @property
    def decoder(self) -> Any:
        """The layers and the final norm, without the head."""
        return getattr(self.model, self.model.base_model_prefix)

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (..., V) of states (..., H): the head alone, without bias or head transform."""
        return states @ self.head_weight.T.to(states.dtype)

    def read(self, ids: Tensor, mask: Tensor, first: Tensor | None = None, **how: Any) -> tuple[Tensor, Any]:
        """Runs the layers. Every hidden state leaves the model here, in float32 whatever its weights are.

        Args:
            ids: (B, T) token ids.
            mask: (B, T), or with the cached tokens before them (B, cached + T).
            first: (B,) tokens of the first segment where `ids` holds two; None where it holds one.
            how: what else the layers are told: `use_cache`, `past_key_values`, `position_ids`.

        Returns:
            Hidden states after the final norm, (B, T, H), and the cache of keys and values, None without `use_cache`.
        """
        if self.attention == "segment":
            mask = segment_mask(mask, ids.shape[1], first)
        with self._mixed_precision():
            output = self.decoder(input_ids=ids, attention_mask=mask, **how)
        return output.last_hidden_state.float(), output.get("past_key_values")

    def _mixed_precision(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 arithmetic for the layers alone, when training on a GPU that has it: no loss is computed in it."""
        if self.training and self.device.type == "cuda" and torch.cuda.is_bf16_supported():
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def hidden_states(self, ids: Tensor, mask: Tensor, first: Tensor | None = None) -> Tensor:
        """Hidden states after the final norm, (B, T, H), of right-padded ids (B, T) with mask (B, T); see `read`.

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

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The embedding of each right-padded segment encoded alone, (B, H)."""
        return self.pool(self.hidden_states(ids, mask), mask)

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """The embedding of each segment, (B, H), from the hidden states of its tokens (B, T, H)."""
        return mean_states(states, mask) if self.pooling == "mean" else last_states(states, mask)

    def save(self, folder: str | Path) -> None:
        """Writes model and tokenizer below `folder` as safetensors and JSON."""
        quiet()
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(Path(folder) / "tokenizer")

    @torch.no_grad()
    def encode(self, sequences: Sequence[Sequence[int]], batch_size: int, label: str | None = None) -> np.ndarray:
        """Embeddings of token sequences encoded alone, (N, H) float32, in the order given.

        Sequences are batched by length, which costs nothing in accuracy: padding never changes an embedding (tested).

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
            states[rows] = self.embed(ids, mask).cpu().numpy()
        self.train(was_training)
        return states


def default_device() -> str:
    """`cuda` where there is one, else `cpu`; nothing else changes."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def quiet() -> None:
    """Bars over the one shard of a small model say nothing to the reader of a pipeline's log."""
    from transformers.utils import logging

    logging.disable_progress_bar()
