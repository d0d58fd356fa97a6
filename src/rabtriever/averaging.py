"""Averages of weights: what fine-tuning adds is kept, and less of what it costs.

A model that is fine-tuned on few pairs forgets; its average with the model that it started from forgets less (WiSE-FT,
Wortsman et al. 2022, arXiv 2109.01903). Several models fine-tuned from the same one can be averaged alike (model
soups, Wortsman et al. 2022, arXiv 2203.05482). Either costs nothing at inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from rabtriever.backbone import Backbone, load_backbone


@torch.no_grad()
def average_weights(backbone: Backbone, others: Mapping[str | Path, float]) -> None:
    """Makes a backbone's weights, in place, the average of itself and of other models of the same shape.

    Args:
        backbone: has what the others' shares leave of 1.
        others: share of each by its model folder (the Hugging Face one); a share of 0 is not read.

    Raises:
        ValueError: the shares exceed 1, or the weights of a folder are not those of this model.
    """
    own = 1.0 - sum(others.values())
    if own < -1e-9:
        raise ValueError(f"the shares of other models sum to {1 - own:g}: expected at most 1; lower one")
    used = {folder: share for folder, share in others.items() if share > 0}
    if not used:
        return
    weights = dict(backbone.model.named_parameters())
    total = {name: own * weight.float() for name, weight in weights.items()}
    for folder, share in used.items():
        found = dict(load_backbone(folder, device=backbone.device).model.named_parameters())
        if {name: weight.shape for name, weight in found.items()} != {n: w.shape for n, w in weights.items()}:
            raise ValueError(f"{folder} is a model of another shape: only models fine-tuned from the same one average")
        for name, weight in found.items():
            total[name] += share * weight.float()
    for name, weight in weights.items():
        weight.copy_(total[name])
