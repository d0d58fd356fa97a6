"""Stage distill@r: the predictor (and query-side adapter) learns what the teacher said in round r."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rabtriever.core.artifacts import check_parent, read_manifest
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.document_terms import EncodedDocuments, score_weights
from rabtriever.models.predictor import Predictor, PredictorParams, build_predictor
from rabtriever.search.scorer import Scorer
from rabtriever.training.embeddings import read_documents_encoded
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.model_io import Teacher, open_teacher, training_device
from rabtriever.training.student import DistillationData, StudentModule, StudentParams
from rabtriever.training.student_io import answer_direction, load_student, save_student
from rabtriever.training.teacher_labels import TeacherLabels, read_candidates
from rabtriever.training.trainer import checkpoint_folder, fit


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    distill: StudentParams
    predictor: PredictorParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker, round: int) -> str:
    """The hash of models/student/<round>; a later round goes on from the student of the one before."""
    params = sections.distill
    shape = sections.predictor
    prompt_params = sections.prompt
    seed = sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    opened = open_teacher(paths.teacher, prompt_params, data)
    teacher, prompt, manifest = opened.backbone, opened.prompt, opened.manifest
    check_parent(read_manifest(paths.embeddings, "embeddings"), "teacher", manifest.hash)
    found, query_embeddings, source = read_candidates(paths.candidates / str(round))
    check_parent(source, "teacher", manifest.hash)
    documents = read_documents_encoded(paths.embeddings, len(dataset.corpus), score_weights(teacher))
    inputs = training_inputs(dataset, prompt)
    facts = _distillation_data(found, query_embeddings, documents, opened, inputs)
    parents = {"data": data, "teacher": manifest.hash, "candidates": source.hash}
    before = None
    if round > 0:
        before, earlier = load_student(paths.student / str(round - 1), opened.encoder, prompt, manifest.hash)
        parents["student"] = earlier.hash
    seed_torch(seed + round)
    predictor = before.predictor if before else _new_predictor(shape, facts, score_weights(teacher).similarity)
    encoder = _query_encoder(params, before, paths.teacher)
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params), **asdict(shape)}
    checkpoints = checkpoint_folder(paths.checkpoints, f"distill-{round}", keys)
    rank = params.lora_rank if params.query_adapter == "lora" else 0
    with contextlib.nullcontext() if encoder is None else tuning(encoder, rank):
        module = StudentModule(predictor, facts, params, seed + round, encoder)
        fit(module, f"distill@{round}", checkpoints, tracker.lightning_logger())
    manifest = save_student(paths.student / str(round), predictor, facts.direction, encoder, parents)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return manifest.hash


def _distillation_data(
    found: TeacherLabels,
    query_embeddings: np.ndarray,
    documents: EncodedDocuments,
    teacher: Teacher,
    inputs: TrainingInputs,
) -> DistillationData:
    return DistillationData(
        query_embeddings=torch.from_numpy(query_embeddings),
        documents=documents,
        candidates=torch.from_numpy(found.candidates),
        target_states=torch.from_numpy(found.states),
        target_scores=torch.from_numpy(found.scores),
        grades=torch.from_numpy(found.grades).float(),
        head_weight=teacher.reader.head_weight.detach().float().cpu(),
        yes_id=inputs.prompt.yes_id,
        no_id=inputs.prompt.no_id,
        direction=answer_direction(teacher.reader, score_weights(teacher.backbone).yes_no_logit, inputs.prompt),
        query_ids=[inputs.query_ids[row] for row in found.query_rows],
    )


def _new_predictor(shape: PredictorParams, data: DistillationData, similarity: float) -> Predictor:
    predictor = build_predictor(data.documents.states.shape[1], shape, similarity)
    listed = data.candidates >= 0
    predictor.standardise(data.query_embeddings, data.documents.states, data.target_states[listed].float())
    return predictor


def _query_encoder(params: StudentParams, before: Scorer | None, teacher: Path) -> Backbone | None:
    """The encoder to train: none, or the one of the round before, or in the first round the teacher's copy."""
    if params.query_adapter == "none":
        return None
    encoder = before.encoder.compared if before and before.encoder is not before.document_encoder else None
    return encoder or load_backbone(teacher / "model", device=training_device())
