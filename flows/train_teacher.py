"""Stage train_teacher: the generative reranker, fine-tuned on yes/no and on each query's candidates.

Run as `python -m flows.train_teacher`.
"""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow

from flows.common import BACKBONE, CHECKPOINTS, PARAMS, PREPARED, TEACHER, main
from rabtriever.contrastive import mine_with_cosine
from rabtriever.inputs import open_model, prepared_data, save_model, training_inputs
from rabtriever.lora import tuning
from rabtriever.params import load_params
from rabtriever.preference import PreferenceModule
from rabtriever.prompt import PromptParams
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.teacher import TeacherModule, TeacherParams
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit


@flow(name="train_teacher")
def train_teacher() -> str:
    """The hash of models/teacher, after training it."""
    params = load_params(TeacherParams, "train_teacher", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    dataset, data = prepared_data(PREPARED)
    with stage_run("train_teacher", params) as run:
        model, prompt, parent = open_model(BACKBONE, "backbone", prompt_params, data)
        inputs = training_inputs(dataset, prompt)
        mined = mine_with_cosine(
            model,
            inputs.supervision,
            inputs.query_ids,
            inputs.document_ids,
            params.mining_depth,
            label="train_teacher: hard negatives",
        )
        keys = {"backbone": parent.hash, "seed": seed, **asdict(params)}
        facts = (prompt, inputs.supervision, inputs.query_ids, inputs.document_ids, mined, params, seed)
        phases = [("train_teacher", TeacherModule), ("train_teacher-dpo", PreferenceModule)]
        for name, module in phases if params.dpo_steps else phases[:1]:
            seed_torch(seed)  # of the adapters, also where a resumed run has skipped the phase before
            with tuning(model, params.lora_rank, params.gradient_checkpointing):
                fit(module(model, *facts), name, checkpoint_folder(CHECKPOINTS, name, keys), run.lightning_logger())
        run.log_metrics(prompt.truncation())
        manifest = save_model(TEACHER, "teacher", model, prompt, {"data": data, "backbone": parent.hash})
    return manifest.hash


if __name__ == "__main__":
    main(train_teacher)
