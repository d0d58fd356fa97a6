"""Stage train_teacher: the generative reranker, which learns what reading adds to the bi-encoder it starts from."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import NamedTuple

from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.core.vectors import unit
from rabtriever.lm.adapters import tuning
from rabtriever.lm.prompt import PromptParams
from rabtriever.training.contrastive import hard_negatives
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import open_model, save_model
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import checkpoint_folder, fit

ENCODE_BATCH = 256


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    train_teacher: TeacherParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/teacher, after training it from the bi-encoder."""
    params, seed = sections.train_teacher, sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    model, prompt, parent = open_model(paths.biencoder, "biencoder", sections.prompt, data)
    parents = {"data": data, "biencoder": parent.hash}
    inputs = training_inputs(dataset, prompt)
    texts = inputs.judgements, inputs.query_ids, inputs.document_ids
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
    checkpoints = checkpoint_folder(paths.checkpoints, "train_teacher", keys)
    queries = unit(model.encode(inputs.query_ids, ENCODE_BATCH, "train_teacher: hard negatives"))
    documents = unit(model.encode(inputs.document_ids, ENCODE_BATCH))
    negatives = hard_negatives(inputs.judgements, queries, documents)
    seed_torch(seed)  # adapters are drawn at random
    with tuning(model, params.lora_rank, params.gradient_checkpointing):
        module = TeacherModule(model, prompt, *texts, queries, documents, negatives, params, seed)
        fit(module, "train_teacher", checkpoints, tracker.lightning_logger())
    tracker.log_metrics(prompt.truncation())
    manifest = save_model(paths.teacher, "teacher", model, prompt, parents)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return manifest.hash
