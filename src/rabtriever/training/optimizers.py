"""The optimiser of models trained from scratch: Muon for the matrices of the layers, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

BETAS = (0.9, 0.98)
MOMENTUM = 0.95
RMS = 0.2  # root mean square of an update of AdamW's, which those of matrices are scaled to
_QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the Newton-Schulz iteration (Jordan et al. 2024)
_ITERATIONS = 5


class Muon(Optimizer):
    """Momentum whose update of a matrix is orthogonalised (Jordan et al. 2024), with decoupled weight decay.

    torch's own Muon does the same in bfloat16. A processor without that type emulates it, at a tenth of the speed.

    Args:
        matrices: weights of two dimensions.
        learning_rate, weight_decay: as of AdamW, to whose size of updates these are scaled.
    """

    def __init__(self, matrices: list[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> None:
        """One step, from the gradients that there are."""
        for group in self.param_groups:
            for matrix in (one for one in group["params"] if one.grad is not None):
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                momentum = state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, MOMENTUM))  # Nesterov's
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * RMS * max(matrix.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """A matrix (A, B) with its singular values brought near to 1, between about 0.7 and 1.2, in float32."""
    wide = matrix.float() if matrix.shape[0] <= matrix.shape[1] else matrix.float().T
    wide = wide / wide.norm().clamp(min=1e-7)
    a, b, c = _QUINTIC
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


class MuonAdamW(Optimizer):
    """Two optimisers that train one model in step.

    On the small backbone Muon needs about two thirds of AdamW's steps, at the same learning rate.

    Args:
        matrices: weights of linear layers, each of two dimensions.
        others: groups of all other parameters, as AdamW takes them.
        learning_rate, weight_decay: of the matrices.
    """

    def __init__(
        self, matrices: list[nn.Parameter], others: list[dict[str, Any]], learning_rate: float, weight_decay: float
    ) -> None:
        super().__init__([*matrices, *(p for group in others for p in group["params"])], {})
        muon = Muon(matrices, learning_rate, weight_decay)
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
