"""The average of a fine-tuned model's weights with those that it started from.

A model that is fine-tuned on few pairs forgets; its average with the model that it started from forgets less, and costs
nothing more at inference (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
"""

from __future__ import annotations

from pathlib import Path

import torch

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone


@torch.no_grad()
def average_weights(backbone: Backbone, start: str | Path | Backbone, share: float) -> None:
    """Makes a backbone's weights, in place, the average of themselves and of another model's of the same shape.

    Args:
        backbone: has what the share leaves of 1.
        start: the other, or its model folder (the Hugging Face one).
        share: of the other, from 0 to 1; at 0 it is not read.

    Raises:
        ValueError: another share, or the weights of the folder are not those of this model.
    """
    named = "the other model" if isinstance(start, Backbone) else start
    if not 0 <= share <= 1:
        raise ValueError(f"the share of {named} is {share:g}: expected 0 to 1")
    if share == 0:
        return
    weights = dict(backbone.model.named_parameters())
    other = start if isinstance(start, Backbone) else load_backbone(start, device="cpu")  # a GPU may hold one of them
    found = dict(other.model.named_parameters())
    if {name: weight.shape for name, weight in found.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError(f"{named} is a model of another shape: only a model and what it started from are averaged")
    for name, weight in weights.items():
        weight.copy_((1.0 - share) * weight.float() + share * found[name].to(weight.device).float())
