"""The stages of a round on a tiny teacher: whose ranking is mined, and which student is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from flows.distill_student import distill
from flows.embed_corpus import embed_corpus
from flows.mine_candidates import mine
from rabtriever.core.artifacts import read_manifest
from rabtriever.core.stages import Paths
from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Dataset
from rabtriever.data.preparation import write_dataset
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.document_terms import EncodedDocuments, bi_encoder_scores, encoded_documents, score_weights
from rabtriever.models.predictor import Predictor, PredictorParams, build_predictor
from rabtriever.training.inputs import TrainingInputs, prepared_data, training_inputs
from rabtriever.training.model_io import READER, save_model
from rabtriever.training.stages import distill_student
from rabtriever.training.student import StudentModule
from rabtriever.training.student_io import ENCODER, PREDICTOR, answer_direction, save_student
from rabtriever.training.teacher_labels import read_candidates
from tests.toy import ROOT, set_params

PATHS = Paths()

DEPTH, QUERIES, SIMILARITY = 4, 9, 2.0
SHAPE = PredictorParams("foldable", hidden=6, products=4)


class Rounds(NamedTuple):
    """What the stages of all rounds read: the teacher's backbone, the data, their states, and a student's parents."""

    teacher: Backbone
    inputs: TrainingInputs
    documents: EncodedDocuments
    parents: dict[str, str]

    def states(self, rows: np.ndarray, encoder: Backbone | None = None) -> np.ndarray:
        """States of some training queries, of the teacher or of a student's own encoder."""
        return (encoder or self.teacher).encode([self.inputs.query_ids[row] for row in rows], 8)

    def leave_student(self, number: int, encoder: Backbone | None = None) -> tuple[Predictor, torch.Tensor, str]:
        """A student of a round that ranks as nobody else does: its predictor, its direction and its hash."""
        torch.manual_seed(number)
        predictor = build_predictor(32, SHAPE, SIMILARITY)
        with torch.no_grad():
            for weight in predictor.parameters():
                weight.copy_(torch.randn_like(weight))
        direction = answer_direction(self.teacher, 50.0, self.inputs.prompt)
        saved = save_student(PATHS.student / str(number), predictor, direction, encoder, self.parents)
        return predictor.eval(), direction, saved.hash


@pytest.fixture
def rounds(store: Path, toy: Any, make_backbone: Callable[..., Backbone], prompt_params: PromptParams) -> Rounds:
    """A folder as embed_corpus leaves it, with settings by which candidates are the ranking alone, and no steps."""
    PATHS.params.write_text((ROOT / "params.yaml").read_text())
    set_params("prompt", **asdict(prompt_params))
    set_params("mine", depth=DEPTH, positives=0, random=0, queries=QUERIES, batch_size=16)
    set_params("predictor", **asdict(SHAPE))
    set_params("distill", steps=0, query_adapter="none")
    write_dataset(Dataset(toy.corpus, toy.queries, {"train": toy.qrels, "dev": {}, "test": {}}), PATHS.prepared)
    dataset, data = prepared_data(PATHS.prepared)
    backbone = make_backbone()
    backbone.configure(similarity=SIMILARITY)
    prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
    teacher = save_model(PATHS.teacher, "teacher", backbone, prompt, {"data": data})
    embed_corpus.fn()
    inputs = training_inputs(dataset, prompt)
    documents = encoded_documents(backbone.encode(inputs.document_ids, 8), score_weights(backbone))
    return Rounds(backbone, inputs, documents, {"data": data, "teacher": teacher.hash})


def test_first_round_ranks_without_a_student(rounds: Rounds) -> None:
    """A first round that wants a student nobody has trained, or takes one that an earlier run has left."""
    rounds.leave_student(0)
    mine.fn(0)
    found, states, manifest = read_candidates(PATHS.candidates / "0")
    np.testing.assert_allclose(states, rounds.states(found.query_rows), atol=1e-5)
    known = bi_encoder_scores(states, rounds.documents, SIMILARITY)
    np.testing.assert_array_equal(found.candidates, top_rows(known, DEPTH))
    assert manifest.parents == rounds.parents


@pytest.mark.parametrize("adapted", [False, True])
def test_later_rounds_rank_with_the_student_before(
    rounds: Rounds, make_backbone: Callable[..., Backbone], adapted: bool
) -> None:
    """Rounds that all show the teacher the same documents: nothing is on-policy, though the loss falls all the same."""
    encoder = make_backbone(seed=5) if adapted else None
    students = [rounds.leave_student(number, encoder) for number in range(2)]
    asked = []
    for number, (predictor, direction, identity) in enumerate(students, start=1):
        mine.fn(number)
        found, states, manifest = read_candidates(PATHS.candidates / str(number))
        own = torch.from_numpy(rounds.states(found.query_rows, encoder))
        wanted = top_rows(predictor.all_scores(own, rounds.documents, direction).numpy(), DEPTH)
        np.testing.assert_array_equal(found.candidates, wanted)
        assert not np.array_equal(wanted, top_rows(bi_encoder_scores(states, rounds.documents, SIMILARITY), DEPTH))
        assert manifest.parents == {**rounds.parents, "student": identity}
        asked.append(found.query_rows.tolist())
    assert asked[0] != asked[1] and {len(set(rows)) for rows in asked} == {QUERIES}, "drawn anew, without repetition"


def test_a_later_round_goes_on_from_the_student_before(rounds: Rounds) -> None:
    """Each round throws away what those before it have learnt, and the last one alone is served."""
    predictor, _, identity = rounds.leave_student(0)
    mine.fn(1)
    distill.fn(1)
    kept = load_file(PATHS.student / "1" / PREDICTOR)
    for name, weight in predictor.state_dict().items():
        torch.testing.assert_close(kept[name], weight, rtol=0, atol=0)
    candidates = read_manifest(PATHS.candidates / "1", "candidates").hash
    parents = {**rounds.parents, "candidates": candidates, "student": identity}
    assert read_manifest(PATHS.student / "1", "student").parents == parents
    assert not (PATHS.student / "1" / ENCODER).exists()


def test_the_first_round_starts_anew(rounds: Rounds) -> None:
    """A second run goes on from the student of the first, or trains on states that nobody has standardised."""
    predictor, _, _ = rounds.leave_student(0)
    mine.fn(0)
    distill.fn(0)
    kept, (_, states, candidates) = load_file(PATHS.student / "0" / PREDICTOR), read_candidates(PATHS.candidates / "0")
    assert not torch.equal(kept["out.weight"], predictor.out.weight)
    torch.testing.assert_close(kept["query_mean"], torch.from_numpy(states.mean(0)))
    torch.testing.assert_close(kept["direction"], answer_direction(rounds.teacher, 1.0, rounds.inputs.prompt))
    parents = {**rounds.parents, "candidates": candidates.hash}
    assert read_manifest(PATHS.student / "0", "student").parents == parents


def test_a_student_answers_as_its_teacher_reads(
    rounds: Rounds, make_backbone: Callable[..., Backbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weight of the yes/no logit is taken for 1, or the head is not that of the reader, which is what answers."""
    reader, prompt, seen = make_backbone(seed=5), rounds.inputs.prompt, []
    rounds.teacher.configure(yes_no_logit=0.25)
    save_model(PATHS.teacher, "teacher", rounds.teacher, prompt, {"data": rounds.parents["data"]}, {READER: reader})
    monkeypatch.setattr(
        distill_student, "StudentModule", lambda *given: (seen.append(given[1]), StudentModule(*given))[1]
    )
    embed_corpus.fn()
    mine.fn(0)
    distill.fn(0)
    head = reader.head_weight.detach()
    torch.testing.assert_close(seen[0].head_weight, head)
    wanted = 0.25 * (head[prompt.yes_id] - head[prompt.no_id])
    torch.testing.assert_close(seen[0].direction, wanted)
    torch.testing.assert_close(load_file(PATHS.student / "0" / PREDICTOR)["direction"], wanted)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_an_adapter_goes_on_too(rounds: Rounds, make_backbone: Callable[..., Backbone], adapter: str) -> None:
    """A later round takes the teacher's copy again, under a predictor that was trained with another query encoder."""
    set_params("distill", query_adapter=adapter)
    rows = np.arange(QUERIES)
    for number, before in ((0, None), (1, make_backbone(seed=5))):
        if before is not None:
            rounds.leave_student(0, before)
        mine.fn(number)
        distill.fn(number)
        own = load_backbone(PATHS.student / str(number) / ENCODER)
        np.testing.assert_allclose(rounds.states(rows, own), rounds.states(rows, before), atol=1e-5)


def test_a_training_that_could_not_be_saved_is_not_done_again(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or a kill after the last step costs the whole training, or its scratch stays for ever."""
    set_params("distill", steps=3, queries=4)
    mine.fn(0)
    with monkeypatch.context() as full:
        full.setattr(distill_student, "save_student", Mock(side_effect=OSError("no space left")))
        with pytest.raises(OSError, match="no space left"):
            distill.fn(0)
    again = Mock(side_effect=AssertionError("trained again"))
    with monkeypatch.context() as patched:
        patched.setattr(StudentModule, "losses", again)
        distill.fn(0)
    assert not list(PATHS.checkpoints.glob("*/*"))
    saved = load_file(PATHS.student / "0" / PREDICTOR)
    distill.fn(0)
    trained = load_file(PATHS.student / "0" / PREDICTOR)
    assert all(torch.equal(weight, trained[name]) for name, weight in saved.items())
