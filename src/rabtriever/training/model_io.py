"""Model folders of the pipeline, read and written with their parents checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rabtriever.core.artifacts import Manifest, atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.lm.backbone import Backbone, default_device
from rabtriever.lm.encoder import Encoder
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams

READER, PREFIX = "reader", "prefix"


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
        folder: models/backbone, models/teacher or models/biencoder.
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


class Teacher(NamedTuple):
    """A teacher folder, opened.

    Attributes:
        backbone: encodes texts alone.
        reader: reads queries after their documents; the backbone itself where it was given no weights of its own.
        prefix: reads documents for the reader; the backbone itself where it has no other.
        prompt: segments and answers.
        manifest: of the folder.
    """

    backbone: Backbone
    reader: Backbone
    prefix: Backbone
    prompt: Prompt
    manifest: Manifest

    @property
    def encoder(self) -> Encoder:
        """Of texts alone: what is compared, and what the predictor reads."""
        return Encoder(self.backbone, None if self.reader is self.backbone else self.reader)


def open_teacher(folder: str | Path, prompt: PromptParams, data: str) -> Teacher:
    """Loads models/teacher with its reader, if it was made from this data and with this prompt.

    Args:
        folder: models/teacher.
        prompt: the current prompt; a model trained with another one is refused.
        data: hash of the prepared data.

    Raises:
        ArtifactMismatchError: the folder is damaged, of another kind, or made from other parents.
    """
    backbone, built, manifest = open_model(folder, "teacher", prompt, data)
    parts = (Path(folder) / name for name in (READER, PREFIX))
    apart = [load_backbone(part, device=training_device()) if part.is_dir() else backbone for part in parts]
    return Teacher(backbone, *apart, built, manifest)


def save_model(
    folder: str | Path,
    kind: str,
    backbone: Backbone,
    prompt: Prompt,
    parents: dict[str, str],
    apart: Mapping[str, Backbone] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Manifest:
    """Writes a model folder: the Hugging Face folder in `model/`, and a manifest with its parents and the prompt.

    What a teacher reads with, where that has weights of its own, is written beside it: `apart`, by READER and PREFIX.
    Further `facts` go into the manifest.
    """
    with atomic_folder(folder) as target:
        backbone.cpu().save(target / "model")
        for name, other in (apart or {}).items():
            other.cpu().save(target / name)
        info = {"width": backbone.width, "parameters": sum(p.numel() for p in backbone.model.parameters())}
        return write_manifest(target, kind, {**parents, "prompt": prompt.hash}, {**info, **(facts or {})})
