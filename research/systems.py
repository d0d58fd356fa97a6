"""What a study trains and measures beside the pipeline's own stages: one entry for each system.

Run in the folder of a workspace; paths are those of `flows.common`.
"""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flows.backbone import backbone
from flows.build_index import build_index
from flows.common import tracked
from flows.distill_student import distill
from flows.embed_corpus import embed_corpus
from flows.evaluate import evaluate
from flows.mine_candidates import mine
from flows.prepare import prepare
from flows.train_biencoder import train_biencoder
from flows.train_teacher import train_teacher
from rabtriever.core.artifacts import write_json
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.settings import load_params
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import Dataset, read_run
from rabtriever.evaluation import systems as evaluation
from rabtriever.evaluation.systems import EvaluateParams, System
from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.document_terms import score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.ops.tracking import stage_run
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.training.averaging import average_weights
from rabtriever.training.contrastive import BiencoderParams
from rabtriever.training.distilled_biencoder import DistilledBiencoderModule, DistilledBiencoderParams
from rabtriever.training.embeddings import read_documents_encoded
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.model_io import open_model, open_teacher, save_model
from rabtriever.training.stages import train_teacher as teacher_stage
from rabtriever.training.student_io import load_student
from rabtriever.training.teacher import TeacherParams
from rabtriever.training.teacher_labels import TeacherLabels, read_candidates
from rabtriever.training.trainer import StepModule, checkpoint_folder, fit
from research.baselines import calibrated_system, late_interaction_system, unserved_student_system
from research.late_interaction import LateInteractionModule
from research.overlay import Settings
from research.workspace import Step, Workspace

PATHS = Paths()

STAGES: dict[str, Callable[..., object]] = {
    "prepare": prepare.fn,
    "backbone": backbone.fn,
    "train_teacher": train_teacher.fn,
    "train_biencoder": train_biencoder.fn,
    "embed_corpus": embed_corpus.fn,
    "mine": mine.fn,
    "distill": distill.fn,
    "build_index": build_index.fn,
    "evaluate": evaluate.fn,
}
DISTILLED, LATE = Path("models/biencoder_distilled"), Path("models/late_interaction")
SENTENCE_BIENCODER = Path("models/biencoder_sentence_transformers")
POOL = "reports/pool"  # the runs of the trial's product: a teacher scores their best documents of a large corpus
POOLED = ("bm25", "biencoder", "student")
PLAIN_TEACHER = "models/teacher_before_dpo"  # the product's, which one that differs in DPO alone goes on from


@dataclass(frozen=True)
class Trained:
    """A system that only the study trains.

    Attributes:
        start: the model that it is trained from.
        params: dataclass of its settings, whose section is `train_` and the name of its folder.
        folder: output; its name is the kind in its manifest.
        module: builds the Lightning module from backbone, inputs, rounds of candidates, settings and seed.
        distilled: whether it reads the candidates.
    """

    start: Path
    params: type
    folder: Path
    module: Callable[[Backbone, TrainingInputs, list[TeacherLabels], Any, int], StepModule]
    distilled: bool

    @property
    def section(self) -> str:
        """Of its settings; also its name as a stage."""
        return f"train_{self.folder.name}"


def _distilled(
    model: Backbone, inputs: TrainingInputs, rounds: list[TeacherLabels], params: Any, seed: int
) -> StepModule:
    given = (inputs.judgements, inputs.query_ids, inputs.document_ids)
    return DistilledBiencoderModule(model, *given, rounds, params, seed)


def _late_interaction(
    model: Backbone, inputs: TrainingInputs, _: list[TeacherLabels], params: Any, seed: int
) -> StepModule:
    return LateInteractionModule(model, inputs.judgements, inputs.query_ids, inputs.document_ids, params, seed)


TRAINED = (
    Trained(PATHS.biencoder, DistilledBiencoderParams, DISTILLED, _distilled, distilled=True),
    Trained(PATHS.backbone, BiencoderParams, LATE, _late_interaction, distilled=False),
)


def training_steps(final_round: int) -> list[Step]:
    """The trainings that the pipeline does not have."""
    steps = []
    for one in TRAINED:
        rounds = [PATHS.candidates / str(number) for number in range(final_round + 1)] if one.distilled else []
        steps.append(
            Step(
                name=one.section,
                sections=("random", "prompt", "final_round", one.section),
                inputs=(str(PATHS.prepared), str(one.start), *map(str, rounds)),
                outputs=(str(one.folder),),
                run=functools.partial(_train, one, rounds),
            )
        )
    steps.append(
        Step(
            name=f"train_{SENTENCE_BIENCODER.name}",
            sections=("random", "prompt", "train_biencoder"),
            inputs=(str(PATHS.prepared), str(PATHS.backbone)),
            outputs=(str(SENTENCE_BIENCODER),),
            run=_train_sentence_biencoder,
        )
    )
    return steps


def adds_preference(settings: Settings, product: Workspace) -> bool:
    """Whether a teacher of these settings is the product's with DPO: all that it is made by is alike, but for that."""
    own, plain = settings["train_teacher"], product.settings["train_teacher"]
    before = {**own, **{name: value for name, value in plain.items() if name.startswith("dpo_")}}
    others = product.reads(str(PATHS.teacher)) - {"train_teacher"}
    alike = before == plain and all(settings[name] == product.settings[name] for name in others)
    return alike and own["dpo_steps"] > 0 and plain["dpo_steps"] == 0


def going_on(steps: list[Step]) -> list[Step]:
    """The steps where `adds_preference`: no teacher is trained from the start again."""
    run = functools.partial(tracked, teacher_stage, "train_teacher", start=Path(PLAIN_TEACHER))
    return [
        dataclasses.replace(one, inputs=(*one.inputs, PLAIN_TEACHER), run=run)
        if str(PATHS.teacher) in one.outputs
        else one
        for one in steps
    ]


def _train(what: Trained, rounds: list[Path]) -> None:
    """Trains one system as the stages train theirs: same loading, same checkpoints, same manifest."""
    params = load_params(what.params, what.section, PATHS.params)
    prompt_params = load_params(PromptParams, "prompt", PATHS.params)
    seed = load_params(SeedParams, "random", PATHS.params).seed
    dataset, data = prepared_data(PATHS.prepared)
    with stage_run(what.section, params) as run:
        model, prompt, parent = open_model(what.start, what.start.name, prompt_params, data)
        annotated, sources = [], {}
        for folder in rounds:
            found, _, manifest = read_candidates(folder)
            annotated.append(found)
            sources[f"candidates {folder.name}"] = manifest.hash
        parents = {"data": data, what.start.name: parent.hash, **sources}
        keys = {**parents, "prompt": prompt.hash, "seed": seed, **asdict(params)}
        checkpoints = checkpoint_folder(PATHS.checkpoints, what.section, keys)
        seed_torch(seed)  # adapters are drawn at random
        with tuning(model, params.lora_rank, params.gradient_checkpointing):
            module = what.module(model, training_inputs(dataset, prompt), annotated, params, seed)
            fit(module, what.section, checkpoints, run.lightning_logger())
        average_weights(model, what.start / "model", params.start_share)
        save_model(what.folder, what.folder.name, model, prompt, parents)
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training


def _train_sentence_biencoder() -> None:
    """Trains the bi-encoder of sentence-transformers, from the start again after a kill."""
    from research.sentence_biencoder import train_sentence_biencoder  # of the extra `research`, and slow to import

    params = load_params(BiencoderParams, "train_biencoder", PATHS.params)
    prompt_params = load_params(PromptParams, "prompt", PATHS.params)
    seed = load_params(SeedParams, "random", PATHS.params).seed
    dataset, data = prepared_data(PATHS.prepared)
    with stage_run(SENTENCE_BIENCODER.name, params):
        model, prompt, parent = open_model(PATHS.backbone, PATHS.backbone.name, prompt_params, data)
        seed_torch(seed)
        with tuning(model, params.lora_rank, params.gradient_checkpointing):
            scratch = PATHS.checkpoints / SENTENCE_BIENCODER.name
            train_sentence_biencoder(model, prompt, training_inputs(dataset, prompt), params, seed, scratch)
        average_weights(model, PATHS.backbone / "model", params.start_share)
        parents = {"data": data, PATHS.backbone.name: parent.hash}
        save_model(SENTENCE_BIENCODER, SENTENCE_BIENCODER.name, model, prompt, parents)
        shutil.rmtree(scratch, ignore_errors=True)


@dataclass(frozen=True)
class Measurement:
    """How a system is measured.

    Attributes:
        model: the output of the workspace that it is.
        measure: opens and measures that.
        reads: what else of the workspace it reads.
        sections: what it reads of params.yaml beside the prompt and `evaluate`, or is chosen by.
    """

    model: Path
    measure: Callable[[Path], System]
    reads: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()


def _by_cosine(folder: Path) -> System:
    dataset, data, prompt_params, params = _test()
    model, prompt, _ = open_model(folder, folder.name, prompt_params, data)
    queries = dataset.split_queries("test")
    return evaluation.biencoder_system(dataset, queries, model, prompt, params.batch_size)


def _by_cosine_and_terms(folder: Path) -> System:
    dataset, data, prompt_params, params = _test()
    fitted = load_params(TeacherParams, "train_teacher", PATHS.params)
    model, prompt, _ = open_model(folder, folder.name, prompt_params, data)
    inputs, queries = training_inputs(dataset, prompt), dataset.split_queries("test")
    how = max(1, fitted.fit_depth), fitted.temperature, params.batch_size
    return calibrated_system(inputs, queries, model, *how)


def _by_tokens(folder: Path) -> System:
    dataset, data, prompt_params, params = _test()
    model, prompt, _ = open_model(folder, folder.name, prompt_params, data)
    queries = dataset.split_queries("test")
    return late_interaction_system(dataset, queries, model, prompt, params.batch_size)


def _by_predictor(folder: Path) -> System:
    dataset, _, _, _ = _test()
    return evaluation.student_system(dataset, dataset.split_queries("test"), Retriever.load(folder))


def _by_predictor_unserved(folder: Path) -> System:
    dataset, _, _, _ = _test()
    _, _, scorer = open_student(folder)
    documents = read_documents_encoded(
        PATHS.embeddings, len(dataset.corpus), score_weights(scorer.document_encoder.compared)
    )
    return unserved_student_system(dataset, dataset.split_queries("test"), scorer, documents)


def _by_reading(folder: Path) -> System:
    """Of all documents, or of those that the systems of the base trial propose."""
    dataset, data, prompt_params, params = _test()
    model, reader, prefix, prompt, _ = open_teacher(folder, prompt_params, data)
    others = [read_run(Path(POOL) / f"{name}.trec") for name in POOLED]
    encoded = read_documents_encoded(PATHS.embeddings, len(dataset.corpus), score_weights(model))
    queries, reranker = dataset.split_queries("test"), Reranker(model, prompt, reader, prefix)
    return evaluation.teacher_system(dataset, queries, reranker, encoded, others, params)[0]


def _test() -> tuple[Dataset, str, PromptParams, EvaluateParams]:
    dataset, data = prepared_data(PATHS.prepared)
    prompt = load_params(PromptParams, "prompt", PATHS.params)
    return dataset, data, prompt, load_params(EvaluateParams, "evaluate", PATHS.params)


# Every system that can be measured on its own; a study adds the settings that make it what it is.
MEASUREMENTS = {
    "zeroshot": Measurement(PATHS.backbone, _by_cosine),
    "biencoder": Measurement(PATHS.biencoder, _by_cosine),
    "biencoder_distilled": Measurement(DISTILLED, _by_cosine),
    "biencoder_calibrated": Measurement(PATHS.biencoder, _by_cosine_and_terms, sections=("train_teacher",)),
    "distilled_calibrated": Measurement(DISTILLED, _by_cosine_and_terms, sections=("train_teacher",)),
    "biencoder_sentence_transformers": Measurement(SENTENCE_BIENCODER, _by_cosine),
    "late_interaction": Measurement(LATE, _by_tokens),
    "student_paper": Measurement(PATHS.retriever, _by_predictor),
    "student": Measurement(PATHS.retriever, _by_predictor),
    "teacher": Measurement(PATHS.teacher, _by_reading, (POOL, str(PATHS.embeddings))),
    "teacher_dpo": Measurement(PATHS.teacher, _by_reading, (POOL, str(PATHS.embeddings))),
}


def measurements(final_round: int, served: bool) -> dict[str, Measurement]:
    """The systems above; a student that is not served is measured from its own folder, without an index."""
    if served:
        return MEASUREMENTS
    alone = Measurement(
        final_student(final_round),
        _by_predictor_unserved,
        (str(PATHS.teacher), str(PATHS.embeddings)),
        ("final_round",),
    )
    return {name: alone if how.model == PATHS.retriever else how for name, how in MEASUREMENTS.items()}


def final_student(final_round: int) -> Path:
    """The folder of the student that the last round leaves."""
    return PATHS.student / str(final_round)


def open_student(folder: Path) -> tuple[Backbone, Prompt, Scorer]:
    """The teacher with its prompt, and one of its students."""
    prompt_params = load_params(PromptParams, "prompt", PATHS.params)
    _, data = prepared_data(PATHS.prepared)
    teacher = open_teacher(PATHS.teacher, prompt_params, data)
    scorer, _ = load_student(folder, teacher.encoder, teacher.prompt, teacher.manifest.hash)
    return teacher.backbone, teacher.prompt, scorer


def report(name: str) -> str:
    """Where the figures of a system measured on its own are kept."""
    return f"reports/systems/{name}.json"


def measuring_steps(final_round: int, served: bool) -> list[Step]:
    """One step for each of the systems that can be measured on their own; arguments as of `measurements`."""
    return [
        Step(
            name=f"measure-{name}",
            sections=("prompt", "evaluate", *how.sections),
            inputs=(str(PATHS.prepared), str(how.model), *how.reads),
            outputs=(report(name),),
            run=functools.partial(_measure, name, how),
        )
        for name, how in measurements(final_round, served).items()
    ]


def _measure(name: str, how: Measurement) -> None:
    dataset, _, _, params = _test()
    timed = list(dataset.split_queries("test").values())[: params.timed_queries]
    rows, per_query = evaluation.table(dataset.qrels["test"], {name: how.measure(how.model)}, timed)
    ndcg = {query_id: round(values["nDCG@10"], 6) for query_id, values in per_query[name].items()}
    write_json(report(name), {"row": rows[name], "per_query": ndcg})
