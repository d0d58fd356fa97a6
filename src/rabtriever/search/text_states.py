"""States of texts, kept by what was encoded and with which weights: a text that comes again is not encoded again."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from rabtriever.core.artifacts import Manifest
from rabtriever.lm.prompt import PromptParams

MOST_BYTES = 64 * 2**20  # of the states of all texts that are kept


class TextStates:
    """The states of the texts that were asked for last, bounded in bytes. Threads may share it.

    Args:
        most_bytes: numbers are dropped beyond; what was asked for longest ago goes first.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._kept: OrderedDict[tuple[str, bytes], Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, encoder: str, texts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
        """(N, W) states of texts; only those that are not kept are encoded, each once.

        Args:
            encoder: identity of weights and prompt, see `encoder_identity`.
            texts: N texts, of which there is one at least.
            encode: gives (M, W) states of M texts.
        """
        keys = [(encoder, hashlib.sha256(text.encode()).digest()) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            found.update(zip(missing, encode(list(missing.values())), strict=True))
        self._keep({key: found[key] for key in keys})
        return torch.stack([found[key] for key in keys])

    def _keep(self, states: dict[tuple[str, bytes], Tensor]) -> None:
        with self._lock:
            for key, state in states.items():
                if key not in self._kept:
                    # a row of a batch would keep the whole batch
                    self._kept[key] = state.clone()
                    self._bytes += state.nbytes
                self._kept.move_to_end(key)
            while self._bytes > self._most:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


def encoder_identity(manifest: Manifest, prompt: PromptParams) -> str:
    """What a text's state depends on: the files of the encoder, and the prompt.

    Versions that differ elsewhere, such as in the predictor, have it in common.

    Args:
        manifest: of the retriever folder.
        prompt: its templates.
    """
    files = sorted((name, file["sha256"]) for name, file in manifest.files.items() if name.startswith("encoder/"))
    return hashlib.sha256(json.dumps([files, asdict(prompt)]).encode()).hexdigest()


SHARED = TextStates()  # versions in one process have it in common: after a swap few texts are new
