"""Stage train_teacher: the generative reranker, fine-tuned on yes/no and on each query's candidates."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rabtriever.core.artifacts import check_parent
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.reranker import Reranker
from rabtriever.training.averaging import average_weights
from rabtriever.training.contrastive import mine_with_cosine
from rabtriever.training.distilled_biencoder import DistilledBiencoderModule
from rabtriever.training.fitting import TERMS, fit_on_dev
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.model_io import PREFIX, READER, Teacher, open_model, open_teacher, save_model
from rabtriever.training.polishing import PolishParams, polishing_candidates
from rabtriever.training.preference import PreferenceModule
from rabtriever.training.reading import ReaderModule
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import checkpoint_folder, fit

FIT_BATCH = 256  # pairs of one forward pass
Candidates = tuple[np.ndarray, np.ndarray]


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    train_teacher: TeacherParams
    polish: PolishParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker, start: Path | None = None) -> str:
    """Trains the teacher.

    Args:
        sections: settings.
        paths: where to read and write.
        tracker: where metrics go.
        start: a teacher without DPO, made from the present bi-encoder with all other settings as now. Only DPO is then
            trained, from there.

    Returns:
        The hash of models/teacher.

    Raises:
        ArtifactMismatchError: `start` was made from another bi-encoder, from other data or with another prompt.
    """
    params = sections.train_teacher
    polish = sections.polish
    prompt_params = sections.prompt
    seed = sections.random.seed
    dataset, data = prepared_data(paths.prepared)
    model, prompt, parent = open_model(paths.biencoder, "biencoder", prompt_params, data)
    parents = {"data": data, "backbone": parent.parents["backbone"], "biencoder": parent.hash}
    inputs = training_inputs(dataset, prompt)
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
    scratch = checkpoint_folder(paths.checkpoints, "train_teacher", keys)
    phases = _Phases(inputs, params, seed, scratch, tracker.lightning_logger, paths.biencoder / "model")
    if start is None:
        reader, candidates = _train(model, phases)
    else:
        trained = open_teacher(start, prompt_params, data)
        check_parent(trained.manifest, "biencoder", parent.hash)
        model, reader, candidates = _as_trained(trained, model, phases)
    if params.dpo_steps:
        phases.tune("train_teacher-dpo", PreferenceModule, reader, candidates, model)
    tracker.log_metrics(prompt.truncation())
    prefix, fitted = model, params.similarity > 0 and params.fit_depth > 0
    if fitted:
        tracker.log_metrics(_fit_weights(Reranker(model, prompt, reader), inputs, params))
    if params.similarity > 0 and polish.steps:
        model = _polish(Reranker(model, prompt, reader), inputs, polish, seed, scratch, tracker.lightning_logger)
        if fitted:
            tracker.log_metrics(_fit_weights(Reranker(model, prompt, reader, prefix), inputs, params))
    parts = {READER: reader, PREFIX: prefix}
    apart = {name: part for name, part in parts.items() if part is not model}
    manifest = save_model(paths.teacher, "teacher", model, prompt, parents, apart)
    shutil.rmtree(scratch, ignore_errors=True)  # not before, or a kill would lose the phases that were finished
    return manifest.hash


@dataclass(frozen=True)
class _Phases:
    """What the phases of the fine-tuning have in common; see `TeacherModule` and `fit`."""

    inputs: TrainingInputs
    params: TeacherParams
    seed: int
    scratch: Path
    logger: Callable[[], Any]
    start: Path

    def mined(self, model: Backbone, of: str = "") -> Candidates:
        """Judged and unjudged documents most similar to each query, (Q, depth) rows each."""
        ids = self.inputs.query_ids, self.inputs.document_ids
        label = f"train_teacher: hard negatives{of}"
        return mine_with_cosine(model, self.inputs.judgements, *ids, self.params.mining_depth, label=label)

    def tune(
        self, name: str, module: type[TeacherModule], trained: Backbone, candidates: Candidates, model: Backbone
    ) -> None:
        """Trains a backbone in place: the model itself, or a reader beside it."""
        seed_torch(self.seed)  # of the adapters, also where a resumed run has skipped the phase before
        apart, inputs, params = model if trained is not model else None, self.inputs, self.params
        facts = (inputs.prompt, inputs.judgements, inputs.query_ids, inputs.document_ids, candidates, params)
        with tuning(trained, params.lora_rank, params.gradient_checkpointing and apart is None):
            fit(module(trained, *facts, self.seed, apart), name, self.scratch / name, self.logger())


def _train(model: Backbone, phases: _Phases) -> tuple[Backbone, Candidates]:
    """The reader, after training the model in place and averaging it, with the candidates that it was trained on.

    The reader is the model itself where it has none of its own.
    """
    candidates = phases.mined(model)
    phases.tune("train_teacher", TeacherModule, model, candidates, model)
    average_weights(model, phases.start, phases.params.start_share)
    if not phases.params.reader_steps:
        return model, candidates
    reader, candidates = copy.deepcopy(model), phases.mined(model, " of the reader")
    phases.tune("train_teacher-reader", ReaderModule, reader, candidates, model)
    return reader, candidates


def _as_trained(trained: Teacher, biencoder: Backbone, phases: _Phases) -> tuple[Backbone, Backbone, Candidates]:
    """Model, reader and candidates as `_train` left them when a teacher was made of them."""
    model = trained.prefix  # the states before they were polished
    if not phases.params.reader_steps:
        return model, model, phases.mined(biencoder)
    return model, trained.reader, phases.mined(model, " of the reader")


def _polish(
    reranker: Reranker,
    inputs: TrainingInputs,
    params: PolishParams,
    seed: int,
    scratch: Path,
    logger: Callable[[], Any],
) -> Backbone:
    """A copy of the teacher's backbone whose states are distilled from its score, averaged with what they were."""
    annotated = polishing_candidates(reranker, inputs, params, seed)
    model = copy.deepcopy(reranker.backbone).requires_grad_(True)
    name = "train_teacher-polish"
    seed_torch(seed)
    with tuning(model, params.lora_rank, params.gradient_checkpointing):
        facts = inputs.judgements, inputs.query_ids, inputs.document_ids, [annotated], params, seed
        checkpoints = checkpoint_folder(scratch, name, asdict(params))
        fit(DistilledBiencoderModule(model, *facts), name, checkpoints, logger())
    average_weights(model, reranker.backbone, params.start_share)
    return model.eval()


def _fit_weights(reranker: Reranker, inputs: TrainingInputs, params: TeacherParams) -> dict[str, float]:
    """Gives the teacher the weights of its score that the dev judgements are likeliest under."""
    model, terms = reranker.backbone, TERMS if params.document_terms else ("yes_no_logit",)
    best, _, _ = fit_on_dev(inputs, model, terms, params.fit_depth, params.temperature, FIT_BATCH, reranker)
    model.configure(**best.weights._asdict())
    print("train_teacher: weights of the score fitted on dev: ", end="")
    print(", ".join(f"{name} {value:.3g}" for name, value in best.weights._asdict().items()))
    if best.new_share:
        share = f"{100 * best.new_share:.1f} % of all"
        print(f"train_teacher: dev asks for too few unseen documents: {share} were treated as unseen")
    print(f"train_teacher: nDCG@10 on dev candidates {best.ndcg:.1f}, by similarity alone {best.similarity_ndcg:.1f}")
    found = {"dev_ndcg_10": best.ndcg, "dev_ndcg_10_similarity": best.similarity_ndcg, "fit_new_share": best.new_share}
    return {**best.weights._asdict(), **found}
