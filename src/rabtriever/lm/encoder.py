"""Texts encoded alone by the frozen teacher: one embedding of each text, or two.

The bi-encoder's embedding is compared by cosine, and its cosine is part of the score. Where the reranker has weights of
its own (`training/reading.py`), a text has a second embedding, from the reranker's weights: the predictor rebuilds from
it what the reranker would say. The two lie side by side, bi-encoder first: W = 2H numbers. Otherwise there is one
embedding for both uses, and W = H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from rabtriever.lm.backbone import Backbone

Array = TypeVar("Array", np.ndarray, Tensor)


class Embeddings(NamedTuple, Generic[Array]):
    """The two embeddings of some texts; one and the same where the encoder gives one.

    Attributes:
        compared: (..., H) by the bi-encoder: their cosine is part of the score.
        read: (..., H) by the reranker: what the predictor reads.
    """

    compared: Array
    read: Array


def split_embeddings(embeddings: Array, width: int) -> Embeddings[Array]:
    """The two embeddings that an encoder's output (..., W) holds, each of `width` H."""
    return Embeddings(embeddings[..., :width], embeddings[..., -width:])


@dataclass(frozen=True)
class Encoder:
    """Encodes texts alone.

    Attributes:
        compared: gives the embeddings that are compared by cosine.
        read: gives the embeddings that the predictor reads; None where `compared` gives both.
    """

    compared: Backbone
    read: Backbone | None = None

    @property
    def width(self) -> int:
        """Numbers that stand for one text, W."""
        return self.compared.width * (1 if self.read is None else 2)

    def encode(self, sequences: Sequence[Sequence[int]], batch_size: int, label: str | None = None) -> np.ndarray:
        """Embeddings of token sequences encoded alone, (N, W) float32, in the order given.

        Args:
            sequences: N non-empty lists of token ids.
            batch_size: sequences in one forward pass.
            label: what the progress line says; no progress when None.
        """
        compared = self.compared.encode(sequences, batch_size, label)
        if self.read is None:
            return compared
        return np.concatenate([compared, self.read.encode(sequences, batch_size)], axis=1)
