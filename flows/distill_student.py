"""Stage distill@r: the predictor (and query-side adapter) learns what the teacher said in round r.

Run as `python -m flows.distill_student --round R`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from dataclasses import asdict

import numpy as np
import torch
from prefect import flow

from flows.common import CANDIDATES, CHECKPOINTS, EMBEDDINGS, PARAMS, PREPARED, STUDENT, TEACHER, main
from rabtriever.annotation import Annotated, read_candidates
from rabtriever.artifacts import check_parent, read_manifest
from rabtriever.backbone import Backbone, default_device, load_backbone
from rabtriever.distilled import answer_direction, load_student, save_student
from rabtriever.document_terms import EncodedDocuments
from rabtriever.embeddings import read_documents_encoded
from rabtriever.inputs import Teacher, TrainingInputs, open_teacher, prepared_data, training_inputs
from rabtriever.lora import tuning
from rabtriever.params import load_params
from rabtriever.predictor import Predictor, PredictorParams, build_predictor
from rabtriever.prompt import PromptParams
from rabtriever.scorer import Scorer
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.student import DistillationData, StudentModule, StudentParams
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit


@flow(name="distill")
def distill(round: int) -> str:
    """The hash of models/student/<round>; a later round goes on from the student of the one before."""
    params = load_params(StudentParams, "distill", PARAMS)
    shape = load_params(PredictorParams, "predictor", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    dataset, data = prepared_data(PREPARED)
    with stage_run(f"distill-{round}", {"distill": params, "predictor": shape}) as run:
        opened = open_teacher(TEACHER, prompt_params, data)
        teacher, prompt, manifest = opened.backbone, opened.prompt, opened.manifest
        check_parent(read_manifest(EMBEDDINGS, "embeddings"), "teacher", manifest.hash)
        found, query_states, source = read_candidates(CANDIDATES / str(round))
        check_parent(source, "teacher", manifest.hash)
        documents = read_documents_encoded(EMBEDDINGS, len(dataset.corpus), teacher.weights)
        inputs = training_inputs(dataset, prompt)
        facts = _distillation_data(found, query_states, documents, opened, inputs)
        parents = {"data": data, "teacher": manifest.hash, "candidates": source.hash}
        before = None
        if round > 0:
            before, earlier = load_student(STUDENT / str(round - 1), opened.encoder, prompt, manifest.hash)
            parents["student"] = earlier.hash
        seed_torch(seed + round)
        predictor = before.predictor if before else _new_predictor(shape, facts, teacher.weights.similarity)
        encoder = _query_encoder(params, before)
        keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params), **asdict(shape)}
        checkpoints = checkpoint_folder(CHECKPOINTS, f"distill-{round}", keys)
        rank = params.lora_rank if params.query_adapter == "lora" else 0
        with contextlib.nullcontext() if encoder is None else tuning(encoder, rank):
            module = StudentModule(predictor, facts, params, seed + round, encoder)
            fit(module, f"distill@{round}", checkpoints, run.lightning_logger())
        manifest = save_student(STUDENT / str(round), predictor, facts.direction, encoder, parents)
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    return manifest.hash


def _distillation_data(
    found: Annotated, query_states: np.ndarray, documents: EncodedDocuments, teacher: Teacher, inputs: TrainingInputs
) -> DistillationData:
    return DistillationData(
        query_states=torch.from_numpy(query_states),
        documents=documents,
        candidates=torch.from_numpy(found.candidates),
        target_states=torch.from_numpy(found.states),
        target_scores=torch.from_numpy(found.scores),
        grades=torch.from_numpy(found.grades).float(),
        head_weight=teacher.reader.head_weight.detach().float().cpu(),
        yes_id=inputs.prompt.yes_id,
        no_id=inputs.prompt.no_id,
        direction=answer_direction(teacher.reader, teacher.backbone.weights.evidence, inputs.prompt),
        query_ids=[inputs.query_ids[row] for row in found.query_rows],
    )


def _new_predictor(shape: PredictorParams, data: DistillationData, similarity: float) -> Predictor:
    predictor = build_predictor(data.documents.states.shape[1], shape, similarity)
    listed = data.candidates >= 0
    predictor.standardise(data.query_states, data.documents.states, data.target_states[listed].float())
    return predictor


def _query_encoder(params: StudentParams, before: Scorer | None) -> Backbone | None:
    """The encoder to train: none, or the one of the round before, or in the first round the teacher's copy."""
    if params.query_adapter == "none":
        return None
    encoder = before.encoder.compared if before and before.encoder is not before.document_encoder else None
    return encoder or load_backbone(TEACHER / "model", device=default_device())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.distill_student", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--round",
        type=int,
        required=True,
        help="number of the round; a round after 0 goes on from the student of the one before",
    )
    arguments = parser.parse_args()
    main(distill, round=arguments.round)
