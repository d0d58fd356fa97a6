"""The one seed of a pipeline run, from which every stage derives its random numbers."""

from __future__ import annotations

from dataclasses import dataclass

from rabtriever.core.settings import bounded


@dataclass(frozen=True)
class SeedParams:
    """Section `random` of params.yaml: every draw of every stage follows from this number."""

    seed: int = bounded(ge=0, le=2**31 - 1)


def seed_torch(seed: int) -> None:
    """Seeds weight initialisation; batches and samples have generators of their own."""
    import torch

    torch.manual_seed(seed)
