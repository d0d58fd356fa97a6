"""What encodes texts alone: the frozen teacher, with all the weights it has.

Where the teacher reads with weights of its own (reading.py), a text has two states: one of the weights that compare,
whose cosine the score has, and one of the reader's, from which the predictor rebuilds what the reader would say. They
lie side by side, W = 2H numbers; elsewhere they are one, W = H.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rabtriever.lm.backbone import Backbone


@dataclass(frozen=True)
class Encoder:
    """Encodes texts alone.

    Attributes:
        compared: gives the states that are compared.
        read: gives those that the predictor reads; None where they are the same.
    """

    compared: Backbone
    read: Backbone | None = None

    @property
    def width(self) -> int:
        """Numbers of a text, W."""
        return self.compared.width * (1 if self.read is None else 2)

    def encode(self, sequences: Sequence[Sequence[int]], batch_size: int, label: str | None = None) -> np.ndarray:
        """(N, W) states of N lists of token ids; arguments as of `Backbone.encode`."""
        compared = self.compared.encode(sequences, batch_size, label)
        if self.read is None:
            return compared
        return np.concatenate([compared, self.read.encode(sequences, batch_size)], axis=1)
