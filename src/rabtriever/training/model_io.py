"""Model folders of the pipeline, read and written with their parents checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rabtriever.core.artifacts import Manifest, atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.lm.backbone import Backbone, default_device
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams


def training_device() -> str:
    """Where a stage computes: `cuda` where there is one, else `cpu`.

    From the first call on, a GPU's matrix units serve float32 products (TF32) in the whole process: several times
    faster, and no hidden state differs by more than bfloat16 weights would make it. Where scores are compared to the
    last digit, use `rabtriever.search.scorer.exact_products`.
    """
    device = default_device()
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    return device


def open_model(folder: str | Path, kind: str, prompt: PromptParams, data: str) -> tuple[Backbone, Prompt, Manifest]:
    """Loads a model folder, its weights as they were saved, if it was made from this data and with this prompt.

    Args:
        folder: models/biencoder or models/teacher.
        kind: what its manifest must say.
        prompt: the current prompt; a model trained with another one is refused.
        data: hash of the prepared data.

    Raises:
        ArtifactMismatchError: the folder is damaged, of another kind, or made from other parents.
    """
    manifest = read_manifest(folder, kind)
    backbone = load_backbone(Path(folder) / "model", device=training_device())
    built = Prompt(backbone.tokenizer, prompt, backbone.context)
    check_parent(manifest, "data", data)
    check_parent(manifest, "prompt", built.hash)
    return backbone, built, manifest


def save_model(
    folder: str | Path,
    kind: str,
    backbone: Backbone,
    prompt: Prompt,
    parents: dict[str, str],
    facts: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes a model folder: the Hugging Face folder in `model/`, and a manifest with its parents and the prompt.

    Further `facts` go into the manifest.
    """
    with atomic_folder(folder) as target:
        backbone.cpu().save(target / "model")
        info = {"width": backbone.width, "parameters": sum(p.numel() for p in backbone.model.parameters())}
        return write_manifest(target, kind, {**parents, "prompt": prompt.hash}, {**info, **(facts or {})})
