"""The training stages one after another on the toy corpus, in a folder of their own and without MLflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.core.seeding import SeedParams
from rabtriever.core.settings import ParamsError, load_sections
from rabtriever.core.stages import NoTracker, Paths
from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset, load_dataset
from rabtriever.data.preparation import write_dataset
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.lm.small_model import SmallModelParams
from rabtriever.models.document_prior import PriorWeights
from rabtriever.search.bm25 import Bm25
from rabtriever.search.retriever import Retriever
from rabtriever.training import shortlist_training
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.stages import build_index, distill_student, mine_candidates, train_biencoder, train_teacher
from rabtriever.training.student_io import load_student
from rabtriever.training.teacher_labels import read_candidates
from tests.closure import ROOT
from tests.models.test_reranker import all_scores

# Settings of a section that differ from the shipped ones; every stage takes a few steps.
SETTINGS: dict[str, dict[str, Any]] = {
    "train_biencoder": {"steps": 3, "batch_size": 6, "hard_negatives": 1, "refresh_every": 2, "language_model": 0.0},
    "train_teacher": {"steps": 2, "queries": 3, "hard_negatives": 2, "similarity": 8.0},
    "mine": {"depth": 2, "positives": 1, "random": 1, "batch_size": 4, "queries": 0},
    "predictor": {"hidden": 12, "products": 4},
    "distill": {"steps": 4, "queries": 8},
    "index": {"dimension": 6},
}


class Recorder(NoTracker):
    """Keeps the metrics that a stage logs."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.metrics |= metrics


@dataclass
class Project:
    """A folder with the toy data prepared, whose stages run with small settings.

    Attributes:
        paths: of the artefacts.
        shared: sections of the prompt, the small model and the seed.
        changes: by section, settings of this project.
        metrics: what the last stage has logged.
    """

    paths: Paths
    shared: dict[str, Any]
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def run(self, stage: ModuleType, **changes: dict[str, Any]) -> str:
        """Runs a stage; the hash that it gives. Settings of a section may be changed for it."""
        shipped = load_sections(stage.Sections, ROOT / "params.yaml")._asdict() | self.shared
        wanted = [SETTINGS, self.changes, changes]
        values = {
            name: replace(section, **{key: value for one in wanted for key, value in one.get(name, {}).items()})
            for name, section in shipped.items()
            if name in stage.Sections._fields
        }
        tracker = Recorder()
        found = stage.run(stage.Sections(**values), self.paths, tracker)
        self.metrics = tracker.metrics
        return found

    def copy(self, folder: Path, *names: str) -> Project:
        """Another project with some of this one's artefacts."""
        paths = Paths.below(folder)
        for name in ("prepared", *names):
            target = getattr(paths, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(getattr(self.paths, name))
        return Project(paths, self.shared, dict(self.changes))

    def prompt(self, backbone: Backbone) -> Prompt:
        """The project's prompt for a model."""
        return Prompt(backbone.tokenizer, self.shared["prompt"], backbone.context)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, toy: Any, prompt_params: PromptParams) -> Project:
    """A project with nothing but data; two of the twelve queries are dev queries."""
    paths, names = Paths.below(tmp_path_factory.mktemp("project")), list(toy.qrels)
    judged = {"train": names[:-2], "dev": names[-2:], "test": []}
    qrels = {split: {name: toy.qrels[name] for name in found} for split, found in judged.items()}
    write_dataset(Dataset(toy.corpus, toy.queries, qrels), paths.prepared)
    small = SmallModelParams(vocabulary=400, width=32, layers=2, heads=4, feed_forward=48, context=256)
    return Project(paths, {"prompt": prompt_params, "small_model": small, "random": SeedParams(7)})


@pytest.fixture(scope="module")
def done(start: Project) -> Project:
    """The project with the artefacts of all stages but the index."""
    for stage in (train_biencoder, train_teacher, mine_candidates, distill_student):
        start.run(stage)
    return start


@pytest.fixture(scope="module")
def plain(done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose score has no cosine, as in the paper, with the artefacts of all stages but the index."""
    project = done.copy(tmp_path_factory.mktemp("plain"), "biencoder")
    project.changes = {"train_teacher": {"similarity": 0.0}}
    for stage in (train_teacher, mine_candidates, distill_student):
        project.run(stage)
    return project


def hash_of(project: Project, name: str) -> str:
    """The hash of an artefact whose folder has its kind's name."""
    return read_manifest(getattr(project.paths, name), name).hash


def weights(folder: Path) -> torch.Tensor:
    """All weights of a model folder of the pipeline, as one vector."""
    return torch.nn.utils.parameters_to_vector(load_backbone(folder / "model").parameters()).detach()


def test_a_bi_encoder_from_scratch(done: Project, tmp_path: Path) -> None:
    """The seed or the training does nothing, the model is another than asked for, or checkpoints stay behind."""
    manifest = read_manifest(done.paths.biencoder, "biencoder")
    model = load_backbone(done.paths.biencoder / "model")
    data = prepared_data(done.paths.prepared)[1]
    assert manifest.parents == {"data": data, "prompt": done.prompt(model).hash}
    assert (model.width, model.context, model.pooling, model.attention) == (32, 256, "last", "causal")
    origin = {"source": "", "revision": "", "licence": ""}
    assert manifest.info == {"width": 32, "parameters": sum(p.numel() for p in model.parameters()), **origin}
    left = [path for path in done.paths.checkpoints.rglob("*") if path.is_file()]
    assert left == [], "of any stage"
    once, again, other, untrained = (done.copy(tmp_path / name) for name in ("once", "again", "other", "untrained"))
    assert once.run(train_biencoder) == again.run(train_biencoder)
    assert again.metrics == {"truncated_document_percent": 0.0, "truncated_query_percent": 0.0}
    other.shared = {**other.shared, "random": SeedParams(8)}
    assert other.run(train_biencoder) != hash_of(once, "biencoder")
    untrained.run(train_biencoder, train_biencoder={"steps": 0})
    assert 1e-3 < (weights(once.paths.biencoder) - weights(untrained.paths.biencoder)).abs().max() < 1


def test_a_bi_encoder_from_a_source(start: Project, make_backbone: Callable[..., Backbone], tmp_path: Path) -> None:
    """A pretrained model is forgotten, read in another way than asked for, or saved with twice the memory."""
    source = make_backbone(seed=5)
    source.save(tmp_path / "source")
    backbone = {"source": str(tmp_path / "source"), "pooling": "mean", "dtype": "bfloat16"}
    project = start.copy(tmp_path)
    project.run(train_biencoder, backbone=backbone, train_biencoder={"steps": 0})
    model = load_backbone(project.paths.biencoder / "model")
    assert model.pooling == "mean" and {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    pairs = zip(source.parameters(), model.parameters(), strict=True)
    assert all(torch.equal(one.to(torch.bfloat16), other) for one, other in pairs)
    before = project.run(train_biencoder, backbone=backbone, train_biencoder={"steps": 2, "lora_rank": 2})
    trained = load_backbone(project.paths.biencoder / "model")
    names = [name for name, _ in source.named_parameters()]
    assert [name for name, _ in trained.named_parameters()] == names, "adapters are merged"
    assert not torch.equal(weights(project.paths.biencoder), torch.nn.utils.parameters_to_vector(model.parameters()))
    assert project.run(train_biencoder, backbone=backbone, train_biencoder={"steps": 2, "lora_rank": 2}) == before


def test_a_source_that_cannot_be_read_once_is_refused(start: Project, tokenizer: Any, tmp_path: Path) -> None:
    """A model is trained for hours before the teacher's states turn out to be wrong."""
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"vocab_size": len(tokenizer), "num_key_value_heads": 1, "initializer_range": 0.5}
    config = MistralConfig(sliding_window=6, **shape)
    MistralForCausalLM(config).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    project = start.copy(tmp_path)
    with pytest.raises(ParamsError, match=r"backbone\.source: this mistral model, whose layers see 6 tokens"):
        project.run(train_biencoder, backbone={"source": str(tmp_path / "source")})
    assert not project.paths.biencoder.exists()


def test_a_template_without_its_text_is_refused_first(start: Project, tmp_path: Path) -> None:
    """Every document is the same one, which shows after the whole training."""
    project = Project(Paths.below(tmp_path), dict(start.shared))  # nothing is prepared
    project.shared["prompt"] = replace(start.shared["prompt"], document="Item:")
    with pytest.raises(ParamsError, match=r"prompt\.document"):
        project.run(train_biencoder)


def test_the_teacher_starts_from_the_bi_encoder(done: Project, tmp_path: Path, monkeypatch: Any) -> None:
    """The teacher is trained from other weights, on mistakes of another model, or scores otherwise than asked for."""
    manifest, parent = read_manifest(done.paths.teacher, "teacher"), read_manifest(done.paths.biencoder, "biencoder")
    teacher = load_backbone(done.paths.teacher / "model")
    data = prepared_data(done.paths.prepared)[1]
    assert manifest.parents == {"data": data, "biencoder": parent.hash, "prompt": done.prompt(teacher).hash}
    assert teacher.settings["similarity"] == 8.0
    assert 1e-3 < (weights(done.paths.teacher) - weights(done.paths.biencoder)).abs().max() < 1
    project, given = done.copy(tmp_path, "biencoder"), []
    made = train_teacher.TeacherModule
    monkeypatch.setattr(train_teacher, "TeacherModule", lambda *args: (given.append(args), made(*args))[1])
    project.run(train_teacher, train_teacher={"steps": 0})
    assert torch.equal(weights(project.paths.teacher), weights(done.paths.biencoder))
    _, prompt, judgements, query_ids, document_ids, negatives = given[0][:6]
    assert len(query_ids) == 10 and prompt.hash == manifest.parents["prompt"]
    start = load_backbone(done.paths.biencoder / "model")
    cosine = unit(start.encode(query_ids, 4)) @ unit(start.encode(document_ids, 4)).T
    for query, rows in enumerate(negatives):
        wrong = [row for row in judgements.positive_for_any.tolist() if row not in judgements.grades[query]]
        ranked = sorted(wrong, key=lambda row, of=cosine[query]: -of[row])
        assert rows[rows >= 0].tolist() == ranked


def test_a_bi_encoder_of_other_data_is_refused(done: Project, toy: Any, tmp_path: Path) -> None:
    """A teacher is trained on documents that its bi-encoder has never seen, and passes for the old data's."""
    project = Project(Paths.below(tmp_path), done.shared)
    names = list(toy.qrels)
    qrels = {"train": {name: toy.qrels[name] for name in names[:-1]}, "dev": {names[-1]: toy.qrels[names[-1]]}}
    write_dataset(Dataset(toy.corpus, toy.queries, {**qrels, "test": {}}), project.paths.prepared)
    project.paths.biencoder.parent.mkdir()
    project.paths.biencoder.symlink_to(done.paths.biencoder)
    with pytest.raises(ArtifactMismatchError, match="data"):
        project.run(train_teacher)


def teacher_of(project: Project) -> tuple[Backbone, Prompt, Any]:
    """The teacher, its prompt, and the training data tokenised."""
    teacher = load_backbone(project.paths.teacher / "model")
    prompt = project.prompt(teacher)
    return teacher, prompt, training_inputs(prepared_data(project.paths.prepared)[0], prompt)


def test_what_is_mined(done: Project) -> None:
    """The student is taught on other documents than it ranks high, or the teacher is asked in another way than used."""
    teacher, prompt, inputs = teacher_of(done)
    documents = read_embeddings(done.paths.embeddings, 8)
    np.testing.assert_allclose(documents, teacher.encode(inputs.document_ids, 8), atol=1e-5)
    found, queries, manifest = read_candidates(done.paths.candidates)
    parents = {"data": prepared_data(done.paths.prepared)[1], "teacher": hash_of(done, "teacher")}
    assert manifest.parents == parents == read_manifest(done.paths.embeddings, "embeddings").parents
    assert found.query_rows.tolist() == list(range(10)) and found.candidates.shape == (10, 4)
    np.testing.assert_allclose(queries, teacher.encode(inputs.query_ids, 8), atol=1e-5)
    nearest = np.argsort(-unit(queries) @ unit(documents).T, axis=1, kind="stable")
    scores = all_scores(teacher, prompt, inputs.query_ids, inputs.document_ids)
    for query, rows in enumerate(found.candidates):
        listed = rows[rows >= 0].tolist()
        grades = inputs.judgements.grades[query]
        assert grades[listed[0]] == max(grades.values()), "the best positive first"
        assert set(nearest[query, :2].tolist()) <= set(listed)
        np.testing.assert_allclose(found.scores[query, : len(listed)], scores[query, listed], atol=1e-3)
    assert manifest.info["queries"] == 10 and manifest.info["teacher_calls"] == (found.candidates >= 0).sum()


def test_some_queries_alone_are_mined(done: Project, tmp_path: Path) -> None:
    """A limit on the teacher's work is ignored, or the labels are filed under other queries."""
    project = done.copy(tmp_path, "teacher")
    project.run(mine_candidates, mine={"queries": 3})
    teacher, _, inputs = teacher_of(project)
    found, queries, _ = read_candidates(project.paths.candidates)
    rows = found.query_rows.tolist()
    assert len(set(rows)) == 3 and rows == sorted(rows) and rows != [0, 1, 2], "drawn at random"
    np.testing.assert_allclose(queries, teacher.encode([inputs.query_ids[row] for row in rows], 8), atol=1e-5)
    assert project.metrics["queries"] == 3
    for row, listed in zip(rows, found.candidates, strict=True):
        assert int(listed[0]) in inputs.judgements.grades[row]


def test_without_a_cosine_bm25_ranks(plain: Project, toy: Any) -> None:
    """With the paper's score the candidates come from a cosine that the score does not have."""
    found, _, _ = read_candidates(plain.paths.candidates)
    inputs = teacher_of(plain)[2]
    texts = inputs.judgements.texts(toy.queries)
    lexical = Bm25([document.contents for document in inputs.dataset.corpus.values()]).rank(texts, 2)[0]
    for rows, ranked in zip(found.candidates.tolist(), lexical.tolist(), strict=True):
        assert set(ranked) <= set(rows)
    teacher, prompt, _ = teacher_of(plain)
    scores = all_scores(teacher, prompt, inputs.query_ids, inputs.document_ids)
    np.testing.assert_allclose(found.scores[:, 0], scores[np.arange(10), found.candidates[:, 0]], atol=1e-3)


def test_a_query_that_is_a_document_is_no_candidate(start: Project, toy: Any, tmp_path: Path) -> None:
    """P06: the query itself ranks first, and the teacher is shown one document less of those that matter."""
    project = Project(Paths.below(tmp_path), start.shared)
    corpus = {
        **toy.corpus,
        "sponge-0": toy.corpus["sponge"]._replace(doc_id="sponge-0", title="", text=toy.queries["sponge-0"]),
    }
    qrels = {"train": dict(toy.qrels), "dev": {"kettle-1": toy.qrels["kettle-1"]}, "test": {}}
    write_dataset(Dataset(corpus, toy.queries, qrels), project.paths.prepared)
    for stage in (train_biencoder, train_teacher):
        project.run(stage)
    project.run(mine_candidates, mine={"depth": 8, "positives": 0, "random": 0})
    found, inputs = read_candidates(project.paths.candidates)[0], teacher_of(project)[2]
    query, own = inputs.judgements.query_ids.index("sponge-0"), inputs.judgements.doc_ids.index("sponge-0")
    assert sorted(found.candidates[query].tolist()) == [row for row in range(9) if row != own]
    assert any(own in rows for rows in found.candidates.tolist()), "of other queries it is"


def student_error(project: Project) -> float:
    """Squared error of the student's scores of the candidates, each list less its mean."""
    teacher, prompt, _ = teacher_of(project)
    scorer, _ = load_student(project.paths.student, teacher, prompt, hash_of(project, "teacher"))
    found, queries, _ = read_candidates(project.paths.candidates)
    documents = torch.from_numpy(read_embeddings(project.paths.embeddings, 8))
    errors = []
    for state, rows, wanted in zip(torch.from_numpy(queries), found.candidates, found.scores, strict=True):
        rows, wanted = rows[rows >= 0], wanted[rows >= 0]
        error = scorer.scores(state[None], scorer.fold(documents[rows]))[0] - wanted
        errors.append(np.var(error))
    return float(np.mean(errors))


@pytest.mark.parametrize("similarity", ["8", "0"])
def test_the_student_learns_what_the_teacher_said(request: Any, tmp_path: Path, similarity: str) -> None:
    """The predictor is distilled towards other scores than the index will give, or not at all."""
    of: Project = request.getfixturevalue("done" if similarity == "8" else "plain")
    made = ("teacher", "embeddings", "candidates")
    untrained, trained = of.copy(tmp_path / "untrained", *made), of.copy(tmp_path / "trained", *made)
    untrained.run(distill_student, distill={"steps": 0})
    trained.run(distill_student, distill={"steps": 150})
    assert student_error(trained) < 0.3 * student_error(untrained)
    manifest = read_manifest(trained.paths.student, "student")
    hashes = {name: hash_of(of, name) for name in ("teacher", "candidates")}
    assert manifest.parents == {"data": prepared_data(of.paths.prepared)[1], **hashes}
    assert manifest.info == {"hidden": 12, "products": 4}


def test_labels_of_another_teacher_are_refused(done: Project, plain: Project, tmp_path: Path) -> None:
    """States of one teacher are predicted from the embeddings of another."""
    project = done.copy(tmp_path, "teacher", "embeddings")
    project.paths.candidates.symlink_to(plain.paths.candidates)
    with pytest.raises(ArtifactMismatchError, match="teacher"):
        project.run(distill_student)
    project.paths.embeddings.unlink()
    project.paths.embeddings.symlink_to(plain.paths.embeddings)
    for stage in (distill_student, build_index):
        with pytest.raises(ArtifactMismatchError, match="teacher"):
            project.run(stage)


MADE = ("biencoder", "teacher", "embeddings", "student")


def scores_of(retriever: Retriever, texts: dict[str, str]) -> np.ndarray:
    """(Q, N) scores that a search gives, in the order of the corpus."""
    order = [document.doc_id for document in retriever.documents]
    return np.array([[found[name] for name in order] for found in retriever.rank(texts, len(order)).values()])


def test_an_index_that_is_scanned(done: Project, toy: Any, tmp_path: Path) -> None:
    """A small corpus has the files of a shortlist; or a search scores otherwise than the distilled student."""
    project = done.copy(tmp_path, *MADE)
    found = project.run(build_index, index={"exact_up_to": 8})
    retriever = Retriever.load(project.paths.retriever)
    assert retriever.manifest is not None and retriever.manifest.hash == found and retriever.exact
    assert not [name for name in retriever.manifest.files if "shortlist" in name or "faiss" in name]
    info = retriever.manifest.info
    assert (info["shortlist_recall"], info["document_prior"], info["num_documents"]) == (None, False, 8)
    teacher, prompt, _ = teacher_of(project)
    hashes = {name: hash_of(done, name) for name in ("biencoder", "teacher", "candidates", "student")}
    data = prepared_data(done.paths.prepared)[1]
    assert retriever.manifest.parents == {"data": data, **hashes, "prompt": prompt.hash}
    assert project.metrics == {"bytes_per_document": 4 * (12 + 4 + 32 + 1)}
    scorer, _ = load_student(project.paths.student, teacher, prompt, hashes["teacher"])
    documents = torch.from_numpy(read_embeddings(project.paths.embeddings, 8))
    queries = scorer.encode(list(toy.queries.values())[:2])
    predicted = scorer.predictor(queries[:, None], documents)
    wanted = scorer.predictor.scores(queries[:, None], documents, predicted, scorer.direction).detach().numpy()
    np.testing.assert_allclose(scores_of(retriever, dict(list(toy.queries.items())[:2])), wanted, atol=1e-4)


def test_an_index_with_a_shortlist(done: Project, toy: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """A large corpus is scanned, or the shortlist is not measured; one that proposes everything has all of the scan."""
    monkeypatch.setattr(shortlist_training, "STEPS", 3)
    scanned, project = done.copy(tmp_path / "scanned", *MADE), done.copy(tmp_path / "proposed", *MADE)
    scanned.run(build_index)
    project.run(build_index, index={"exact_up_to": 7})
    retriever = Retriever.load(project.paths.retriever)
    assert retriever.manifest is not None and not retriever.exact
    assert {"shortlist.faiss", "shortlist.safetensors"} <= set(retriever.manifest.files)
    assert retriever.manifest.info["shortlist_recall"] == 100.0 == project.metrics["shortlist_recall"]
    two = dict(list(toy.queries.items())[:2])
    wanted = scores_of(Retriever.load(scanned.paths.retriever), two)
    np.testing.assert_allclose(scores_of(retriever, two), wanted, atol=1e-4)
    assert list(project.paths.checkpoints.rglob("*.ckpt")) == []


def test_an_index_with_the_document_prior(done: Project, toy: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The prior is fitted on training queries, or on another system's scores; or what is served is without it."""
    scanned, project, given = done.copy(tmp_path / "scanned", *MADE), done.copy(tmp_path / "prior", *MADE), {}
    weights = PriorWeights(15.0, 4.0, 0.7)
    features_of = build_index.prior_features
    monkeypatch.setattr(build_index, "prior_features", lambda *args: given.setdefault("features", features_of(*args)))
    monkeypatch.setattr(build_index, "fit_prior", lambda *args: (given.setdefault("fit", args), weights)[1])
    scanned.run(build_index)
    project.run(build_index, index={"document_prior": True})
    retriever, plain = Retriever.load(project.paths.retriever), Retriever.load(scanned.paths.retriever)
    assert retriever.manifest is not None and retriever.manifest.info["document_prior"] is True
    names = sorted(list(toy.qrels)[-2:])
    dev = {name: toy.queries[name] for name in names}
    rows, scores, embeddings, features, grades = given["fit"]
    assert features is given["features"]
    order = list(load_dataset(project.paths.prepared).corpus)
    assert grades == [{order.index(doc_id): grade for doc_id, grade in toy.qrels[name].items()} for name in names]
    unfitted = scores_of(plain, dev)
    np.testing.assert_allclose(scores, np.take_along_axis(unfitted, rows, axis=1), atol=1e-4)
    assert (np.diff(scores, axis=1) <= 0).all() and rows.shape == (2, 8)
    np.testing.assert_allclose(embeddings, retriever.encode(list(dev.values())).numpy(), atol=1e-5)
    counts = [sum(doc_id in toy.qrels[name] for name in list(toy.qrels)[:-2]) for doc_id in order]
    np.testing.assert_allclose(features.popularity, np.log1p(counts), atol=1e-6)
    more = 15.0 * unit(embeddings) @ features.centroids.T - 4.0 * features.hubness + 0.7 * features.popularity
    np.testing.assert_allclose(scores_of(retriever, dev), unfitted + more, atol=1e-3)


def test_the_prior_that_is_fitted_is_told(done: Project, tmp_path: Path, capsys: Any) -> None:
    """Nobody sees what the served scores were changed by."""
    project = done.copy(tmp_path, *MADE)
    project.run(build_index, index={"document_prior": True})
    out = capsys.readouterr().out
    assert all(f"{name} " in out for name in ("query_centroid", "hubness_penalty", "log_popularity"))
    assert "8 documents, 196 bytes each, scanned" in out


def test_a_prior_without_a_cosine_is_refused(plain: Project, tmp_path: Path) -> None:
    """Every score of the index is infinite, or the prior is left out without a word."""
    project = plain.copy(tmp_path, *MADE)
    with pytest.raises(ValueError, match="the document prior needs one above 0"):
        project.run(build_index, index={"document_prior": True})
    assert not project.paths.retriever.exists()


def test_a_factory_that_faiss_cannot_read_is_told_first(tmp_path: Path, start: Project) -> None:
    """A misspelt index is told after the projections were trained."""
    project = Project(Paths.below(tmp_path), start.shared)  # nothing is there that a stage could read
    with pytest.raises(ValueError, match=r"index\.factory 'Flatt' does not work"):
        project.run(build_index, index={"factory": "Flatt"})
