"""The optimiser of models trained from scratch: Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

BETAS = (0.9, 0.98)


class MuonAdamW(Optimizer):
    """Two optimisers that train one model in step.

    Muon orthogonalises the update of a matrix (Jordan et al. 2024); scaled to the size of AdamW's updates it takes the
    same learning rate. On the small backbone it needs about two thirds of AdamW's steps.

    Args:
        matrices: weights of linear layers, each of two dimensions.
        others: groups of all other parameters, as AdamW takes them.
        learning_rate, weight_decay: of the matrices.
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[dict[str, Any]], learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__([*matrices, *(p for group in others for p in group["params"])], {})
        muon = Muon(matrices, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.parts = (muon, AdamW(others, lr=learning_rate, betas=BETAS))
        self._share()

    def _share(self) -> None:
        """The groups and the state of the parts are this optimiser's: a scheduler changes them through it."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state.clear()
        for part in self.parts:
            self.state.update(part.state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of both parts, after the closure that computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes both parts up where they were."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share()
