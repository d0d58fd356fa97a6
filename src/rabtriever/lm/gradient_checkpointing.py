"""Gradient checkpointing: layers keep only their inputs, and are computed again when gradients are.

A layer of transformers that is checkpointed drops the cache of keys and values in training, since computing it again
would write it twice. So nothing can be read after what was read before: each pair is read as one sequence instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import last_states, pad


@contextlib.contextmanager
def checkpointed(backbone: Backbone) -> Iterator[None]:
    """Checkpoints every layer while the model is in training mode; in evaluation it keeps its cache.

    Non-reentrant, which gives adapters beside frozen weights their gradients, and repeats dropout as it was.
    """
    model, how = backbone.model, {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):  # the name in newer versions, which warn of the older one
        model.activation_checkpointing_enable(how)
        off = model.activation_checkpointing_disable
    else:
        model.gradient_checkpointing_enable(how)
        off = model.gradient_checkpointing_disable
    model.disable_input_require_grads()  # a hook for the reentrant kind alone, which no other process could be sent
    try:
        yield
    finally:
        off()


class ReadPairs(NamedTuple):
    """Pairs read as one sequence each.

    Attributes:
        asked: (P, H) state at the last token of each pair.
        states: (D, H) state of each first segment alone.
    """

    asked: Tensor
    states: Tensor


def read_pairs(
    backbone: Backbone, first: Sequence[Sequence[int]], second: Sequence[Sequence[int]], rows: Sequence[int]
) -> ReadPairs:
    """Reads pairs without a cache; the states are those of reading each first segment once (tested).

    A first segment never sees the second, so its state alone lies within any pair that begins with it.

    Args:
        backbone: the model.
        first: D first segments, each of which begins at least one pair.
        second: P second segments, one for each pair.
        rows: P, the first segment of each pair.
    """
    joined = [[*first[row], *segment] for row, segment in zip(rows, second, strict=True)]
    ids, mask = pad(joined, backbone.device)
    lengths = torch.tensor([len(segment) for segment in first], device=ids.device)
    states = backbone.hidden_states(ids, mask, lengths[torch.as_tensor(rows, device=ids.device)])
    _, pairs = np.unique(np.asarray(rows), return_index=True)  # one pair of each first segment
    alone = (torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]).to(mask.dtype)  # (D, T)
    return ReadPairs(last_states(states, mask), backbone.pool(states[torch.from_numpy(pairs).to(ids.device)], alone))
