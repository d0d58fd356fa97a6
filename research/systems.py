"""The systems of a study: how each is measured, and what the study trains beside the pipeline's stages.

Everything here runs in a workspace. To add a system, write a function from `Given` to `System` and give it
an entry in `SYSTEMS`. A system that differs in settings alone needs no code: a study file names those.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rabtriever.core.artifacts import Manifest, write_json
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.settings import load_params
from rabtriever.core.stages import Paths
from rabtriever.core.vectors import top_rows
from rabtriever.data import stage as prepare
from rabtriever.data.beir_io import read_run, write_run
from rabtriever.evaluation import systems as evaluation
from rabtriever.evaluation.systems import EvaluateParams, System
from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.reranker import Reranker
from rabtriever.search.retriever import Retriever
from rabtriever.search.shortlist import IndexParams
from rabtriever.training.contrastive import BiencoderParams
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import document_ids, prepared_data, training_inputs
from rabtriever.training.mining import bi_encoder_ranking
from rabtriever.training.model_io import open_model, save_model
from rabtriever.training.stages import distill_student, mine_candidates, train_biencoder, train_teacher
from rabtriever.training.student_io import load_student
from rabtriever.training.teacher_labels import read_candidates
from rabtriever.training.trainer import checkpoint_folder, fit
from research.distilled_biencoder import DistilledBiencoderModule
from research.hypencoder import load_hypencoder, train_hypencoder
from research.stratified import mine_stratified
from research.workspace import Step, run_stage

PATHS = Paths()
STAGES = {
    "prepare": prepare,
    "train_biencoder": train_biencoder,
    "train_teacher": train_teacher,
    "mine": mine_candidates,
    "distill": distill_student,
}
PREPARED, BIENCODER, TEACHER, EMBEDDINGS, CANDIDATES, STUDENT = (
    str(getattr(PATHS, name)) for name in ("prepared", "biencoder", "teacher", "embeddings", "candidates", "student")
)
DISTILLED, HYPENCODER = "models/biencoder_distilled", "models/hypencoder"
STRATIFIED, STRATIFIED_STUDENT = "data/candidates_stratified", "models/student_stratified"
POOLED = ("bm25", "biencoder", "student")  # whose first documents the teacher reads
RERANKED = 100  # documents of the bi-encoder that `biencoder_rerank` has the teacher read
METRICS = ("nDCG@10", "MRR@10", "R@1", "S@1")


class Given:
    """What every measurement reads, opened when it is asked for."""

    def __init__(self) -> None:
        self.dataset, self.data = prepared_data(PATHS.prepared)
        self.queries = self.dataset.split_queries("test")
        self.params = load_params(EvaluateParams, "evaluate", PATHS.params)
        self.batch = self.params.batch_size

    def model(self, folder: str) -> tuple[Backbone, Prompt, Manifest]:
        """A language model that was trained, with its prompt."""
        return open_model(folder, Path(folder).name, load_params(PromptParams, "prompt", PATHS.params), self.data)

    @cached_property
    def embeddings(self) -> np.ndarray:
        """(N, H) of all documents by the bi-encoder."""
        return np.array(read_embeddings(EMBEDDINGS, len(self.dataset.corpus)))

    @cached_property
    def reranker(self) -> Reranker:
        """The teacher at work."""
        return Reranker(*self.model(TEACHER)[:2], self.model(BIENCODER)[0])


class Measured(NamedTuple):
    """How a system is measured: the function, what it reads beside the data, and of the settings."""

    measure: Callable[[Given], System]
    reads: tuple[str, ...]
    sections: tuple[str, ...] = ("prompt", "evaluate")


def report(name: str) -> str:
    """Where the figures of a system are kept in a workspace."""
    return f"reports/systems/{name}.json"


def run_file(name: str) -> str:
    """Where the ranking of a system is kept in a workspace."""
    return f"reports/runs/{name}.trec"


def training_steps() -> list[Step]:
    """The trainings that the pipeline does not have, each named after what it writes."""
    frozen = (PREPARED, TEACHER, EMBEDDINGS)
    apart = PATHS._replace(candidates=Path(STRATIFIED), student=Path(STRATIFIED_STUDENT))
    trained = {
        DISTILLED: (["train_biencoder"], (PREPARED, BIENCODER, CANDIDATES), _train_distilled),
        HYPENCODER: (["predictor", "distill"], (*frozen, CANDIDATES), partial(train_hypencoder, PATHS, HYPENCODER)),
        STRATIFIED: (["mine"], (*frozen, CANDIDATES), partial(mine_stratified, PATHS, STRATIFIED)),
        STRATIFIED_STUDENT: (
            ["predictor", "distill"],
            (*frozen, STRATIFIED),
            partial(run_stage, distill_student, apart),
        ),
    }
    return [
        Step(Path(output).name, ["random", "prompt", *sections], inputs, [output], run)
        for output, (sections, inputs, run) in trained.items()
    ]


def measuring_steps() -> list[Step]:
    """One step for each system, which leaves its figures and its ranking."""
    return [
        Step(
            f"measure-{name}",
            how.sections,
            (PREPARED, *how.reads),
            (report(name), run_file(name)),
            partial(_measure, name, how),
        )
        for name, how in SYSTEMS.items()
    ]


def _measure(name: str, how: Measured) -> None:
    given = Given()
    system, timed = how.measure(given), list(given.queries.values())[: given.params.timed_queries]
    rows, per_query = evaluation.table(given.dataset.qrels["test"], {name: system}, timed)
    values = {query: [round(found[metric], 5) for metric in METRICS] for query, found in per_query[name].items()}
    write_run(run_file(name), system.run, name)
    write_json(report(name), {"row": rows[name], "per_query": values})


def _bm25(given: Given) -> System:
    return evaluation.bm25_system(given.dataset, given.queries)


def _by_cosine(folder: str, given: Given) -> System:
    """The cosine of texts encoded alone by the model of a folder."""
    model, prompt, _ = given.model(folder)
    return evaluation.biencoder_system(given.dataset, given.queries, model, prompt, given.batch)


def _student(folder: str, given: Given) -> System:
    """A student on an index over all documents, searched as it is served."""
    encoder, prompt, manifest = given.model(BIENCODER)
    scorer, _ = load_student(Path(folder), encoder, prompt, manifest.hash)
    index, documents = load_params(IndexParams, "index", PATHS.params), torch.from_numpy(given.embeddings)
    return evaluation.student_system(
        given.dataset, given.queries, Retriever.assemble(scorer, given.dataset.corpus, documents, index)
    )


def _hypencoder(given: Given) -> System:
    encoder, prompt, _ = given.model(BIENCODER)
    model, documents = load_hypencoder(HYPENCODER, encoder.width), torch.tensor(given.embeddings)

    @torch.no_grad()
    def scores(texts: list[str]) -> np.ndarray:
        asked = torch.from_numpy(encoder.encode(prompt.query.ids(texts), given.batch))
        return torch.cat([model(one[None], documents[None]) for one in asked]).numpy()

    found, stored = scores(list(given.queries.values())), 4.0 * (model.reduce.out_features + encoder.width)
    return evaluation.scoring_system(given.dataset, given.queries, scores, found, stored)


def _teacher(given: Given) -> System:
    """The teacher on the first documents of three others, or on all where the corpus is small."""
    reranker, others = given.reranker, [read_run(run_file(name)) for name in POOLED]
    return evaluation.teacher_system(given.dataset, given.queries, reranker, given.embeddings, others, given.params)[0]


def _rerank(given: Given) -> System:
    """The bi-encoder, then the teacher on its first documents; a timed query is answered so from the start.

    Token ids and embeddings of the documents are at hand, as they would be in service.
    """
    model, prompt, _ = given.model(BIENCODER)
    reranker, batch = given.reranker, given.batch
    ids, vectors, names = document_ids(given.dataset, prompt), given.embeddings, list(given.dataset.corpus)

    def first(texts: list[str]) -> np.ndarray:
        return bi_encoder_ranking(model.encode(prompt.query.ids(texts), batch), vectors, RERANKED)

    def search(text: str) -> np.ndarray:
        rows, query = first([text])[0], reranker.prompt.query.ids([text])
        pairs, scores = np.stack([np.zeros_like(rows), rows], axis=1), np.empty(len(rows), dtype=np.float32)
        for part in reranker.score_pairs(query, ids, pairs, batch, document_embeddings=given.embeddings):
            scores[part.pairs] = part.scores
        return rows[top_rows(scores[None], 10)[0]]

    ranked = zip(given.queries, first(list(given.queries.values())), strict=True)
    proposed = [{query: {names[row]: -float(rank) for rank, row in enumerate(rows)} for query, rows in ranked}]
    params = replace(given.params, teacher_all_up_to=0, teacher_pool=RERANKED)
    system, _ = evaluation.teacher_system(given.dataset, given.queries, reranker, given.embeddings, proposed, params)
    return replace(system, search=search)


def _train_distilled() -> None:
    """Trains the distilled bi-encoder as the stages train theirs: same loading, same checkpoints, same manifest."""
    params = load_params(BiencoderParams, "train_biencoder", PATHS.params)
    seed, name, given = load_params(SeedParams, "random", PATHS.params).seed, Path(DISTILLED).name, Given()
    model, prompt, parent = given.model(BIENCODER)
    labels, _, source = read_candidates(CANDIDATES)
    parents = {"data": given.data, "biencoder": parent.hash, "candidates": source.hash}
    keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
    checkpoints = checkpoint_folder(PATHS.checkpoints, name, keys)
    seed_torch(seed)  # adapters are drawn at random
    with tuning(model, params.lora_rank, params.gradient_checkpointing):
        module = DistilledBiencoderModule(model, training_inputs(given.dataset, prompt), labels, params, seed)
        fit(module, name, checkpoints)
    save_model(DISTILLED, name, model, prompt, parents)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training


_SERVED = ("prompt", "evaluate", "index")
SYSTEMS = {
    "bm25": Measured(_bm25, (), ("evaluate",)),
    "biencoder": Measured(partial(_by_cosine, BIENCODER), (BIENCODER,)),
    "biencoder_distilled": Measured(partial(_by_cosine, DISTILLED), (DISTILLED,)),
    "biencoder_rerank": Measured(_rerank, (BIENCODER, TEACHER, EMBEDDINGS)),
    "hypencoder": Measured(_hypencoder, (BIENCODER, EMBEDDINGS, HYPENCODER)),
    "student": Measured(partial(_student, STUDENT), (BIENCODER, EMBEDDINGS, STUDENT), _SERVED),
    "student_stratified": Measured(
        partial(_student, STRATIFIED_STUDENT), (BIENCODER, EMBEDDINGS, STRATIFIED_STUDENT), _SERVED
    ),
    "teacher": Measured(_teacher, (BIENCODER, TEACHER, EMBEDDINGS, *map(run_file, POOLED))),
}
