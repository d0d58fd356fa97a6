"""Stage build_index on a tiny teacher: the folder carries the calibration that dev gives, and its card."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest, write_manifest
from rabtriever.core.settings import load_sections
from rabtriever.core.stages import NoTracker, Paths
from rabtriever.data.beir_io import Dataset
from rabtriever.data.preparation import write_dataset
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.predictor import Predictor
from rabtriever.search.calibration import CALIBRATION
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import fit_calibration, judged_hits
from rabtriever.training.embeddings import write_shards
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import save_model
from rabtriever.training.stages import build_index
from rabtriever.training.student_io import answer_direction, save_student
from tests.toy import ROOT, set_params

PATHS = Paths()
ORIGIN = {"source": "acme/tiny", "revision": "abc123", "licence": ""}


def run() -> str:
    """The stage, with the settings in the working folder."""
    return build_index.run(load_sections(build_index.Sections), PATHS, NoTracker())


def others(corpus: Iterable[str], grades: dict[str, int]) -> dict[str, int]:
    """Judgements by which all other documents are right: the untrained student ranks these first."""
    return {doc_id: int(doc_id not in grades) for doc_id in corpus}


@pytest.fixture
def leave(store: Path, toy: Any, make_backbone: Callable[..., Backbone], prompt_params: PromptParams) -> Any:
    """Leaves all that the stage reads; the odd queries of the toy set are dev, with the judgements that are wanted."""

    def made(judge: Callable[[Iterable[str], dict[str, int]], dict[str, int]] = others) -> None:
        PATHS.params.write_text((ROOT / "params.yaml").read_text())
        set_params("prompt", **asdict(prompt_params))
        set_params("index", dimension=6)
        dev = {query_id: grades for query_id, grades in toy.qrels.items() if query_id.endswith("1")}
        dev = {query_id: judge(toy.corpus, grades) for query_id, grades in dev.items()}
        train = {query_id: grades for query_id, grades in toy.qrels.items() if query_id not in dev}
        write_dataset(Dataset(toy.corpus, toy.queries, {"train": train, "dev": dev, "test": {}}), PATHS.prepared)
        dataset, data = prepared_data(PATHS.prepared)
        backbone = make_backbone()
        backbone.configure(similarity=8.0)
        prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
        start = save_model(PATHS.biencoder, "biencoder", backbone, prompt, {"data": data}, facts=ORIGIN)
        teacher = save_model(PATHS.teacher, "teacher", backbone, prompt, {"data": data, "biencoder": start.hash})
        inputs, parents = training_inputs(dataset, prompt), {"data": data, "teacher": teacher.hash}
        PATHS.embeddings.mkdir(parents=True)
        write_shards(backbone, inputs.document_ids, PATHS.embeddings)
        write_manifest(PATHS.embeddings, "embeddings", parents, {})
        torch.manual_seed(0)
        student = Predictor(32, hidden=6, products=4, similarity=8.0)
        direction = answer_direction(backbone, prompt)
        parents = {"data": data, "teacher": teacher.hash, "candidates": "c" * 64}
        save_student(PATHS.student, student, direction, parents)

    return made


def test_the_folder_carries_what_dev_gives(leave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A calibration of the training queries, or of another depth than the documented one, promises too much."""
    leave()
    set_params("index", precision=0.9)
    first = run()
    dataset, retriever = prepared_data(PATHS.prepared)[0], Retriever.load(PATHS.retriever)
    hits = judged_hits(retriever.rank(dataset.split_queries("dev"), 10), dataset.qrels["dev"])
    wanted = fit_calibration(hits, 0.9).calibration
    found = retriever.calibration
    assert found is not None and found.threshold is not None and (found.slope, found.precision) == (wanted.slope, 0.9)
    assert found.intercept == wanted.intercept and found.threshold == pytest.approx(wanted.threshold, abs=1e-6)
    printed = capsys.readouterr().out
    assert f"from a relevance_score of {found.threshold:.3f} on, 90 % of the hits of dev queries are right" in printed
    assert run() == first, "equal inputs, another retriever"


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        (lambda corpus, grades: dict.fromkeys(grades, 0), "0 of 48 hits of dev queries are right, expected some"),
        (
            lambda corpus, grades: grades,
            "a higher score does not make a hit of a dev query likelier to be right (slope -",
        ),
    ],
)
def test_where_dev_cannot_tell_the_stage_says_so(
    leave: Any, judge: Any, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder without a calibration whose owner was never told takes log-odds for probabilities."""
    leave(judge)
    run()
    assert Retriever.load(PATHS.retriever).calibration is None and not (PATHS.retriever / CALIBRATION).exists()
    assert f"build_index: no calibration: {why}" in capsys.readouterr().out
    card = (PATHS.retriever / "MODEL_CARD.md").read_text()
    assert f"It is not calibrated: {why}" in card
    assert ("No dev query has a relevant document" in card) == (judge(["a"], {"a": 1}) == {"a": 0})


def test_an_unreachable_precision_is_told(leave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A threshold that nobody could choose, and no word of it."""
    leave()
    set_params("index", precision=0.999)
    run()
    assert Retriever.load(PATHS.retriever).calibration.threshold is None
    assert "no relevance_score has the precision index.precision" in capsys.readouterr().out
    assert (
        "No `relevance_score` reaches a precision of 99.9 % on dev." in (PATHS.retriever / "MODEL_CARD.md").read_text()
    )


def test_the_card_tells_where_the_retriever_is_from(leave: Any) -> None:
    """A folder that is handed on without its history cannot be judged by who gets it."""
    leave()
    run()
    card, manifest = (PATHS.retriever / "MODEL_CARD.md").read_text(), read_manifest(PATHS.retriever, "retriever")
    assert card.startswith("---\nlibrary_name: rabtriever\npipeline_tag: text-ranking\nbase_model: acme/tiny\ntags:\n")
    for said in (
        "| backbone | `acme/tiny` at revision `abc123`, fine-tuned; ",
        "| licence of the backbone | see https://huggingface.co/acme/tiny |",
        "| training data | 6 queries with 9 judgements |",
        "| dev data | 6 queries |",
        f"| hash of the data | `{manifest.info['data']}` |",
        f"| teacher, student | `{manifest.parents['teacher'][:12]}`, `{manifest.parents['student'][:12]}` |",
        "| nDCG@10 | MRR@10 | R@10 | R@100 | S@1 |",
    ):
        assert said in card
    assert str(Path.cwd()) not in card


def test_a_teacher_of_another_biencoder_is_refused(leave: Any) -> None:
    """A card that names the licence of a backbone which the retriever was not made from."""
    leave()
    (PATHS.biencoder / "model/config.json").write_text("{}")
    facts = read_manifest(PATHS.biencoder, "biencoder", verify=False)
    write_manifest(PATHS.biencoder, "biencoder", facts.parents, facts.info)
    with pytest.raises(ArtifactMismatchError, match="made from biencoder"):
        run()
