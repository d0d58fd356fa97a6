"""The distilled bi-encoder: what it joins of the rounds, what it fits, and which documents it may push away."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.training.distilled_biencoder import DistilledBiencoderModule, DistilledBiencoderParams, join_rounds
from rabtriever.training.losses import forward_kl, margin_mse
from rabtriever.training.teacher_labels import TeacherLabels
from rabtriever.training.trainer import fit

PARAMS = DistilledBiencoderParams(
    steps=5,
    queries=12,
    candidates=8,
    objective="kl",
    contrastive=0.0,
    temperature=0.1,
    lora_rank=0,
    gradient_checkpointing=False,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.0,
    start_share=0.0,
)


def annotated(query_rows, candidates, scores, grades=None) -> TeacherLabels:
    """A round's annotations, without the states that only the student reads."""
    candidates, scores = np.array(candidates), np.array(scores, dtype=np.float32)
    grades = np.where(candidates < 0, -1, 0) if grades is None else np.array(grades)
    states = np.zeros((*candidates.shape, 1), dtype=np.float16)
    return TeacherLabels(np.array(query_rows), candidates, states, scores, grades, {})


@pytest.fixture
def teacher() -> np.ndarray:
    """(12, 8) scores of a teacher that agrees with no label."""
    return np.random.default_rng(5).normal(size=(12, 8)).astype(np.float32) * 4


@pytest.fixture
def rounds(teacher) -> list[TeacherLabels]:
    """Two rounds that together show every query all documents, the second one with fillers."""
    first = np.stack([np.random.default_rng(row).permutation(8) for row in range(12)])
    halves = []
    for part in (first[:, :4], np.pad(first[:, 4:], ((0, 0), (0, 2)), constant_values=-1)):
        scores = np.where(part >= 0, np.take_along_axis(teacher, part.clip(min=0), axis=1), 1e6)
        halves.append(annotated(np.arange(12), part, scores))
    return halves


@pytest.fixture
def make_module(make_backbone, judgements, query_ids, document_ids, rounds):
    """A module with a fresh backbone on the toy data, with some settings changed."""

    def make(found=rounds, seed=0, **changes) -> DistilledBiencoderModule:
        params = dataclasses.replace(PARAMS, **changes)
        return DistilledBiencoderModule(make_backbone(), judgements, query_ids, document_ids, found, params, seed)

    return make


def cosine(module: DistilledBiencoderModule) -> np.ndarray:
    """(12, 8) cosines as the evaluation computes them."""
    queries, documents = (unit(module.backbone.encode(ids, 5)) for ids in (module.query_ids, module.document_ids))
    return queries @ documents.T


def test_rounds_are_joined():
    """A later round replaces the earlier one, documents count twice, or fillers count as the last document."""
    lists = join_rounds(
        [
            annotated([4, 2], [[7, 1, -1], [0, -1, -1]], [[0.5, 2.0, 99.0], [1.0, 99.0, 99.0]]),
            annotated([4, 9], [[1, 3], [-1, -1]], [[2.0, -1.0], [99.0, 99.0]], [[2, -1], [-1, -1]]),
        ]
    )
    assert [found.query for found in lists] == [2, 4], "by row, and none without candidates"
    assert lists[1].documents.tolist() == [1, 7, 3], "best first"
    assert lists[1].scores.tolist() == [2.0, 0.5, -1.0]
    assert [found.possible_false_negatives for found in lists] == [set(), {3}]


@pytest.mark.parametrize("found", [[], [annotated([1], [[-1]], [[0.0]])]])
def test_nothing_annotated(make_module, found):
    """Without candidates the run fails deep inside numpy, or trains on nothing."""
    with pytest.raises(ValueError, match=rf"no candidates in {len(found)} rounds: annotate some.*stage mine"):
        make_module(found)


@pytest.mark.parametrize(("name", "objective"), [("kl", forward_kl), ("margin_mse", margin_mse)])
def test_the_loss_is_that_of_the_cosines(make_module, teacher, name, objective):
    """Columns of the batch are mixed up, or what is trained is not what ranks (all queries, so their order is none)."""
    module = make_module(objective=name)
    terms = module.losses(np.random.default_rng(0))
    assert set(terms) == {"distillation"}
    scores = torch.from_numpy(cosine(module) / PARAMS.temperature)
    expected = objective(scores, torch.from_numpy(teacher), torch.ones(12, 8).bool())
    assert float(terms["distillation"].detach()) == pytest.approx(float(expected), rel=1e-4)


def test_fillers_do_not_count(make_module, rounds):
    """Padding of the candidate lists is trained on as a document."""
    spoiled = dataclasses.replace(rounds[1], scores=np.where(rounds[1].candidates < 0, -7, rounds[1].scores))
    values = [make_module([rounds[0], last]).losses(np.random.default_rng(0)) for last in (rounds[1], spoiled)]
    assert float(values[0]["distillation"].detach()) == float(values[1]["distillation"].detach())


def test_documents_of_a_step_are_encoded_once(make_module, monkeypatch):
    """A document that many queries share is encoded for each of them: a step costs twelve times as much."""
    module, encoded = make_module(), []
    original = module._encode
    monkeypatch.setattr(module, "_encode", lambda sequences: (encoded.append(len(sequences)), original(sequences))[1])
    module.losses(np.random.default_rng(0))
    assert encoded == [12, 8]


def test_short_lists_keep_the_teachers_best(make_module, teacher):
    """A step's lists are longer than the settings allow, always the same, or hold only what the teacher rejects."""
    module, seen = make_module(candidates=3), set()
    rng = np.random.default_rng(0)
    for _ in range(20):
        found = module._shortened(module._lists[5], rng)
        assert len(set(found.documents.tolist())) == 3
        assert found.documents[0] == teacher[5].argmax()
        assert found.scores.tolist() == teacher[5][found.documents].tolist()
        seen |= set(found.documents.tolist())
    assert seen == set(range(8))


def test_contrastive_term(make_module, judgements, rounds):
    """A positive, a possible false negative or a document without any judgement is pushed away from its query."""
    possible_false_negatives = dataclasses.replace(
        rounds[0], grades=np.where(rounds[0].candidates == 2, -1, rounds[0].grades)
    )
    module = make_module([possible_false_negatives, rounds[1]], contrastive=0.5)
    terms = module.losses(np.random.default_rng(0))
    assert set(terms) == {"distillation", "contrastive"}
    blocked = module._blocked(module._lists, {row: row for row in range(8)})
    unjudged = set(judgements.unjudged.tolist())
    assert unjudged
    for query, row in enumerate(blocked.tolist()):
        unsafe = {2} if 2 in possible_false_negatives.candidates[query] else set()
        expected = set(judgements.grades[query]) | unjudged | unsafe
        assert {document for document, is_blocked in enumerate(row) if is_blocked} == expected
    double = make_module([possible_false_negatives, rounds[1]], contrastive=1.0).losses(np.random.default_rng(0))
    assert float(double["contrastive"].detach()) == pytest.approx(2 * float(terms["contrastive"].detach()), rel=1e-5)


def test_copies_of_a_possible_false_negative_are_blocked(make_module, judgements, rounds):
    """P07: a document that may be right pushes its query away under another id."""
    suspected = dataclasses.replace(rounds[0], grades=np.where(rounds[0].candidates == 2, -1, rounds[0].grades))
    module = make_module([suspected, rounds[1]], contrastive=0.5)
    plain = module._blocked(module._lists, {row: row for row in range(8)})
    first_copy = judgements.first_copy.copy()
    first_copy[3] = 2
    module.judgements = dataclasses.replace(judgements, first_copy=first_copy)
    blocked = module._blocked(module._lists, {row: row for row in range(8)})
    unsafe = torch.tensor([2 in part for part in suspected.candidates.tolist()])
    assert unsafe.any() and not unsafe.all()
    assert torch.equal(blocked[:, 3], plain[:, 3] | unsafe) and not plain[unsafe, 3].all()
    others = [row for row in range(8) if row != 3]
    assert torch.equal(blocked[:, others], plain[:, others])


def test_contrastive_targets_need_not_be_candidates(make_module, judgements):
    """Queries whose positive the teacher was not shown stop the run."""
    query = judgements.query_ids.index("ladder-0")
    sponge = judgements.doc_ids.index("sponge")
    module = make_module([annotated([query], [[sponge]], [[1.0]])], contrastive=1.0, queries=4)
    terms = module.losses(np.random.default_rng(0))
    terms["contrastive"].backward()
    assert float(terms["contrastive"].detach()) > 0


def test_gradients_reach_the_backbone(make_module):
    """One side is encoded without gradient: half of the bi-encoder does not learn."""
    module = make_module()
    module.losses(np.random.default_rng(0))["distillation"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.backbone.parameters())


@pytest.mark.parametrize(("objective", "contrastive"), [("kl", 0.0), ("kl", 0.1), ("margin_mse", 0.0)])
def test_training_learns_the_teachers_ranking(make_module, rounds, teacher, objective, contrastive):
    """The parts fit together but the whole does not learn what the teacher says (chance: 1.5 of 12)."""
    module = make_module(steps=80, objective=objective, contrastive=contrastive)
    fit(module, "distilled")
    assert (cosine(module).argmax(1) == teacher.argmax(1)).sum() >= 10


def test_same_seed_same_biencoder(make_module):
    """Two trainings from the same annotations differ, or the seed does nothing."""
    vectors = []
    for seed in (0, 0, 1):
        module = make_module(seed=seed, queries=4, candidates=3, contrastive=0.5)
        fit(module, "distilled")
        vectors.append(torch.nn.utils.parameters_to_vector(module.backbone.parameters()))
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_states_are_pooled_as_at_inference(make_module, teacher):
    """Training fits the last state where the mean of all is indexed."""
    module = make_module()
    module.backbone.configure(pooling="mean")
    found = module.losses(np.random.default_rng(0))["distillation"]
    scores = torch.from_numpy(cosine(module) / PARAMS.temperature)
    expected = forward_kl(scores, torch.from_numpy(teacher), torch.ones(12, 8).bool())
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4)
