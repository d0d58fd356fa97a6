"""Stage train_biencoder: what a user would train instead, from the same backbone and data."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import NamedTuple

from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.lm.adapters import tuning
from rabtriever.lm.prompt import PromptParams
from rabtriever.training.averaging import average_weights
from rabtriever.training.contrastive import BiencoderParams, ContrastiveModule
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import open_model, save_model
from rabtriever.training.trainer import checkpoint_folder, fit


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    train_biencoder: BiencoderParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/biencoder, after contrastive training with hard negatives it mines itself."""
    params = sections.train_biencoder
    prompt_params = sections.prompt
    seed = sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    model, prompt, parent = open_model(paths.backbone, "backbone", prompt_params, data)
    inputs = training_inputs(dataset, prompt)
    seed_torch(seed)  # adapters are drawn at random
    parents = {"data": data, "backbone": parent.hash}
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
    checkpoints = checkpoint_folder(paths.checkpoints, "train_biencoder", keys)
    with tuning(model, params.lora_rank, params.gradient_checkpointing):
        module = ContrastiveModule(model, inputs.judgements, inputs.query_ids, inputs.document_ids, params, seed)
        fit(module, "train_biencoder", checkpoints, tracker.lightning_logger())
    average_weights(model, paths.backbone / "model", params.start_share)
    manifest = save_model(paths.biencoder, "biencoder", model, prompt, parents)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return manifest.hash
