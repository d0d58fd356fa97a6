"""The stage evaluate on toy models: what the gate is given, and which row is the one that is served."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_folder, read_json, write_json, write_manifest
from rabtriever.core.seeding import SeedParams
from rabtriever.core.stages import NoTracker, Paths
from rabtriever.data.beir_io import Dataset, Run, read_run
from rabtriever.data.preparation import write_dataset
from rabtriever.evaluation import stage
from rabtriever.evaluation.prior import Prior
from rabtriever.evaluation.systems import EvaluateParams
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_prior import PriorWeights
from rabtriever.models.predictor import Predictor
from rabtriever.search.retriever import Retriever
from rabtriever.search.shortlist import IndexParams
from rabtriever.training.inputs import TrainingInputs, document_ids, prepared_data
from rabtriever.training.model_io import save_model
from rabtriever.training.stages import build_index
from rabtriever.training.student_io import answer_direction, save_student

PARAMS = EvaluateParams(teacher_all_up_to=8, teacher_pool=2, batch_size=16, timed_queries=2, samples=1)
INDEX = IndexParams(document_prior=False, exact_up_to=100, depth=100, dimension=6, factory="Flat", precision=0.9)
SYSTEMS = ["bm25", "biencoder", "student", "teacher", "biencoder_prior", "student_prior", "teacher_prior"]


class Evaluated(NamedTuple):
    """A retriever and what the stage says of it."""

    paths: Paths
    sections: stage.Sections
    dataset: Dataset
    retriever: Retriever
    report: dict[str, Any]
    runs: dict[str, Run]
    fits: list[tuple[Prior, Run, float, PriorWeights]]


@pytest.fixture(scope="module", params=[False, True], ids=["without prior", "with prior"])
def evaluated(request, toy, make_backbone, prompt_params, tmp_path_factory) -> Iterator[Evaluated]:
    """An untrained student of untrained models, indexed with and without the document prior, and evaluated."""
    paths = Paths.below(tmp_path_factory.mktemp("evaluate"))
    data = _write_data(paths, toy)
    _write_models(paths, data, make_backbone, prompt_params)
    index = replace(INDEX, document_prior=request.param)
    build_index.run(build_index.Sections(index, prompt_params, SeedParams(1)), paths, NoTracker())
    sections = stage.Sections(PARAMS, prompt_params)
    fitted, fits = Prior.fitted, []

    def noted(prior: Prior, run: Run, dataset: Dataset, inputs: TrainingInputs, nats: float) -> PriorWeights:
        fits.append((prior, run, nats, fitted(prior, run, dataset, inputs, nats)))
        return fits[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "others_cpu", lambda: 3.0)
        patch.setattr(Prior, "fitted", noted)
        report = stage.run(sections, paths, NoTracker())
    runs = {path.stem: read_run(path) for path in (paths.reports / "runs").iterdir()}
    dataset, _ = prepared_data(paths.prepared)
    yield Evaluated(paths, sections, dataset, Retriever.load(paths.retriever), report, runs, fits)


def _write_data(paths: Paths, toy: Any) -> str:
    """Half of the queries are trained on, some of the others are dev and the rest test."""
    names = list(toy.queries)
    parts = {"train": names[::2], "dev": names[1:8:2], "test": names[9::2]}
    qrels = {split: {name: toy.qrels[name] for name in part} for split, part in parts.items()}
    write_dataset(Dataset(toy.corpus, toy.queries, qrels), paths.prepared)
    write_json(paths.reports / "data.json", {"source": "toy"})
    return prepared_data(paths.prepared)[1]


def _write_models(paths: Paths, data: str, make_backbone: Any, prompt_params: Any) -> None:
    parents = {"data": data}
    for seed, kind in enumerate(("biencoder", "teacher")):
        model = make_backbone(seed=seed)
        prompt = Prompt(model.tokenizer, prompt_params, model.context)
        if kind == "teacher":
            model.configure(similarity=3.0)
        saved = save_model(getattr(paths, kind), kind, model, prompt, parents)
        parents = {"data": data, kind: saved.hash}
    dataset, _ = prepared_data(paths.prepared)
    with atomic_folder(paths.embeddings) as target:
        np.save(target / "shard-00000.npy", model.encode(document_ids(dataset, prompt), 8))
        write_manifest(target, "embeddings", parents, {})
    torch.manual_seed(3)
    predictor = Predictor(model.width, hidden=12, products=5, similarity=3.0)
    save_student(paths.student, predictor, answer_direction(model, prompt), {**parents, "candidates": "c" * 64})


def plain(found: Evaluated) -> Retriever:
    """The retriever without the document prior."""
    return found.retriever.reindexed(found.dataset.corpus)


def has_prior(found: Evaluated) -> bool:
    return found.retriever.manifest.info["document_prior"]


def first_relevant(run: Run, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """S@1 of each query, by hand."""
    best = {query: min(scores, key=lambda name, of=scores: (-of[name], name)) for query, scores in run.items()}
    return {query: float(grades.get(best[query], 0) > 0) for query, grades in qrels.items()}


def test_the_gate_is_given_the_dev_queries_of_what_is_served(evaluated):
    """Versions are compared on the test queries, or by the student without what is served with it."""
    gate = read_json(evaluated.paths.reports / "gate.json")
    assert set(gate) == {"retriever", "split", "biencoder_ndcg_10", "per_query"}
    assert gate["retriever"] == evaluated.retriever.manifest.hash and gate["split"] == "dev"
    dev = evaluated.dataset.qrels["dev"]
    served = evaluated.retriever.rank(evaluated.dataset.split_queries("dev"), 100)
    assert {query: values["S@1"] for query, values in gate["per_query"].items()} == first_relevant(served, dev)
    for query, values in gate["per_query"].items():
        order = sorted(served[query], key=lambda name, of=served[query]: (-of[name], name))
        rank = 1 + next(place for place, name in enumerate(order) if name in dev[query])
        assert values["MRR@10"] == pytest.approx(1 / rank)


def test_the_gate_knows_the_bi_encoders_mean_on_dev(evaluated, make_backbone):
    """The floor that a version has to reach is of the test queries, or of another system."""
    dataset, model = evaluated.dataset, make_backbone(seed=0)
    prompt = Prompt(model.tokenizer, evaluated.sections.prompt, model.context)
    queries = dataset.split_queries("dev")
    documents = model.encode(document_ids(dataset, prompt), 8)
    asked = model.encode(prompt.query.ids(list(queries.values())), 8)
    cosines = asked @ documents.T / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(documents, axis=1)
    gains = []
    for query, scores in zip(queries, cosines, strict=True):
        grades = np.array([dataset.qrels["dev"][query].get(name, 0) for name in dataset.corpus])
        discounts = 1 / np.log2(np.arange(2, 10))
        gains.append((grades[np.argsort(-scores)] @ discounts) / (np.sort(grades)[::-1] @ discounts))
    found = read_json(evaluated.paths.reports / "gate.json")["biencoder_ndcg_10"]
    assert found == pytest.approx(100 * np.mean(gains), abs=1e-3)


def test_the_report_names_the_row_that_is_served(evaluated):
    """The metrics that a version is registered with are of a row that nobody is answered with."""
    report, retriever = evaluated.report, evaluated.retriever
    assert report == read_json(evaluated.paths.reports / "evaluation.json")
    assert report["served"] == ("student_prior" if has_prior(evaluated) else "student")
    assert (report["shortlist_recall"], report["search"]) == (None, "exact scan")
    queries = evaluated.dataset.split_queries("test")
    served = retriever.rank(queries, 100)
    for query, scores in evaluated.runs[report["served"]].items():
        assert scores == pytest.approx(served[query], abs=1e-3)


def test_the_student_is_measured_without_the_prior(evaluated):
    """What training queries tell about documents is taken for what was distilled."""
    wanted = plain(evaluated).rank(evaluated.dataset.split_queries("test"), 100)
    assert evaluated.runs["student"].keys() == wanted.keys()
    for query, scores in evaluated.runs["student"].items():
        assert scores == pytest.approx(wanted[query], abs=1e-3)
        more = evaluated.runs["student_prior"][query]
        assert max(abs(more[name] - score) for name, score in scores.items()) > 0.1, "the prior says something"


def test_the_teacher_has_the_students_prior(evaluated):
    """The two differ by more than reading: the prior is of other weights, or of another model's embeddings."""
    for query, scores in evaluated.runs["teacher"].items():
        added = {name: evaluated.runs["teacher_prior"][query][name] - score for name, score in scores.items()}
        student, with_prior = (evaluated.runs[name][query] for name in ("student", "student_prior"))
        assert added == pytest.approx({name: with_prior[name] - student[name] for name in student}, abs=1e-3)


def test_priors_are_fitted_on_dev(evaluated):
    """The weights have seen the test queries, or one system is given those of the other."""
    assert [nats for _, _, nats, _ in evaluated.fits] == [20.0, 1.0], "bi-encoder, student"
    for _, run, _, _ in evaluated.fits:
        assert set(run) == set(evaluated.dataset.qrels["dev"])
    cosines = [score for scores in evaluated.fits[0][1].values() for score in scores.values()]
    assert max(map(abs, cosines)) <= 1
    student = plain(evaluated).rank(evaluated.dataset.split_queries("dev"), 100)
    for query, scores in evaluated.fits[1][1].items():
        assert scores == pytest.approx(student[query], abs=1e-3)


def test_the_bi_encoders_prior_is_of_its_own_embeddings(evaluated, make_backbone):
    """A cosine and a prior in nats are added as if they were of one unit, or the prior is of the teacher's states."""
    prior, _, _, weights = evaluated.fits[0]
    model = make_backbone(seed=0)
    prompt = Prompt(model.tokenizer, evaluated.sections.prompt, model.context)
    for query, cosines in evaluated.runs["biencoder"].items():
        (asked,) = model.encode(prompt.query.ids([evaluated.dataset.queries[query]]), 1)
        near = weights.query_centroid * prior.features.centroids @ (asked / np.linalg.norm(asked))
        more = (
            near + weights.log_popularity * prior.features.popularity - weights.hubness_penalty * prior.features.hubness
        )
        wanted = {name: 20 * cosines[name] + float(more[row]) for row, name in enumerate(evaluated.dataset.corpus)}
        assert evaluated.runs["biencoder_prior"][query] == pytest.approx(wanted, abs=1e-3)
    documents = model.encode(document_ids(evaluated.dataset, prompt), 8)
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    asked = model.encode(prompt.query.ids(list(evaluated.dataset.split_queries("train").values())), 8)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    hubness = 0.05 * np.log(np.exp(documents @ asked.T / 0.05).mean(1))
    assert prior.features.hubness == pytest.approx(hubness, abs=1e-4)


def test_the_table_has_all_rows_and_the_latency_of_those_that_are_asked(evaluated):
    """A row is missing, or a row that nobody has asked shows the latency of another."""
    rows = evaluated.report["systems"]
    assert list(rows) == SYSTEMS and set(evaluated.runs) == set(SYSTEMS)
    untimed = [name for name, row in rows.items() if row["ms_per_query"] is None]
    assert untimed == ["biencoder_prior", "student_prior", "teacher_prior"]
    assert [name for name, row in rows.items() if row["ms_per_query_p95"] is None] == ["teacher", *untimed]
    lines = (evaluated.paths.reports / "per_query.tsv").read_text().splitlines()
    assert len(lines) == 1 + len(SYSTEMS) * len(evaluated.dataset.qrels["test"])
    assert evaluated.report["timing"] == {"queries": 2, "others_cpu_percent": 3.0}
    assert evaluated.report["num_queries"] == 2 and "retention" not in evaluated.report


def test_the_gap_of_the_report_is_of_its_own_rows(evaluated):
    """The three systems of the gap change places, or the difference is of another metric than the table's."""
    found, rows = evaluated.report, evaluated.report["systems"]
    lead = rows["teacher"]["nDCG@10"] - rows["biencoder"]["nDCG@10"]
    assert found["gap"]["mean"] == pytest.approx(lead, abs=0.02)
    over = rows["student"]["nDCG@10"] - rows["biencoder"]["nDCG@10"]
    assert found["student_vs_biencoder"]["mean"] == pytest.approx(over, abs=0.02)


def test_a_retriever_of_other_data_is_refused(evaluated, tmp_path):
    """The retriever of one delivery is judged by the queries of the next."""
    write_dataset(replace(evaluated.dataset, corpus=dict(list(evaluated.dataset.corpus.items())[:7])), tmp_path / "new")
    with pytest.raises(ArtifactMismatchError, match="data"):
        stage.run(evaluated.sections, evaluated.paths._replace(prepared=tmp_path / "new"), NoTracker())
    assert json.loads((evaluated.paths.reports / "gate.json").read_text())["split"] == "dev"
