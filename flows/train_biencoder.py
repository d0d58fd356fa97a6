"""Stage train_biencoder: what a user would train instead, from the same backbone and data.

Run as `python -m flows.train_biencoder`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict

from prefect import flow

from flows.common import BACKBONE, BIENCODER, CHECKPOINTS, PARAMS, PREPARED, main
from rabtriever.averaging import average_weights
from rabtriever.contrastive import BiencoderParams, ContrastiveModule
from rabtriever.inputs import open_model, prepared_data, save_model, training_inputs
from rabtriever.lora import tuning
from rabtriever.params import load_params
from rabtriever.prompt import PromptParams
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit


@flow(name="train_biencoder")
def train_biencoder() -> str:
    """The hash of models/biencoder, after contrastive training with hard negatives it mines itself."""
    params = load_params(BiencoderParams, "train_biencoder", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    dataset, data = prepared_data(PREPARED)
    with stage_run("train_biencoder", params) as run:
        model, prompt, parent = open_model(BACKBONE, "backbone", prompt_params, data)
        inputs = training_inputs(dataset, prompt)
        seed_torch(seed)  # adapters are drawn at random
        parents = {"data": data, "backbone": parent.hash}
        keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
        checkpoints = checkpoint_folder(CHECKPOINTS, "train_biencoder", keys)
        with tuning(model, params.lora_rank, params.gradient_checkpointing):
            module = ContrastiveModule(model, inputs.supervision, inputs.query_ids, inputs.document_ids, params, seed)
            fit(module, "train_biencoder", checkpoints, run.lightning_logger())
        average_weights(model, BACKBONE / "model", params.start_share)
        manifest = save_model(BIENCODER, "biencoder", model, prompt, parents)
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return manifest.hash


if __name__ == "__main__":
    main(train_biencoder)
