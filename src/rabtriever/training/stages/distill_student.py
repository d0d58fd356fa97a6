"""Stage distill: the predictor learns what the teacher said of the candidates."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from typing import NamedTuple

import torch

from rabtriever.core.artifacts import check_parent, read_manifest
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.predictor import Predictor, PredictorParams
from rabtriever.models.reranker import similarity_of
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import prepared_data
from rabtriever.training.model_io import open_model
from rabtriever.training.student import DistillationData, StudentModule, StudentParams
from rabtriever.training.student_io import answer_direction, save_student
from rabtriever.training.teacher_labels import read_candidates
from rabtriever.training.trainer import checkpoint_folder, fit


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    distill: StudentParams
    predictor: PredictorParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/student."""
    params, shape, seed = sections.distill, sections.predictor, sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    teacher, prompt, manifest = open_model(paths.teacher, "teacher", sections.prompt, data)
    check_parent(read_manifest(paths.embeddings, "embeddings"), "biencoder", manifest.parents["biencoder"])
    found, query_embeddings, source = read_candidates(paths.candidates)
    check_parent(source, "teacher", manifest.hash)
    facts = DistillationData(
        query_embeddings=torch.from_numpy(query_embeddings),
        document_embeddings=torch.from_numpy(read_embeddings(paths.embeddings, len(dataset.corpus))),
        candidates=torch.from_numpy(found.candidates),
        target_states=torch.from_numpy(found.states),
        target_scores=torch.from_numpy(found.scores),
        head_weight=teacher.head_weight.detach().float().cpu(),
        direction=answer_direction(teacher, prompt),
    )
    seed_torch(seed)
    predictor = Predictor(teacher.width, **asdict(shape), similarity=similarity_of(teacher))
    listed = facts.candidates >= 0
    predictor.standardise(facts.query_embeddings, facts.document_embeddings, facts.target_states[listed].float())
    parents = {"data": data, "biencoder": manifest.parents["biencoder"], "teacher": manifest.hash}
    parents["candidates"] = source.hash
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params), **asdict(shape)}
    checkpoints = checkpoint_folder(paths.checkpoints, "distill", keys)
    fit(StudentModule(predictor, facts, params, seed), "distill", checkpoints, tracker.lightning_logger())
    saved = save_student(paths.student, predictor, facts.direction, parents)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return saved.hash
