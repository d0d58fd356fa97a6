"""The teacher's training: its candidates, its loss, and what the gradients reach."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.models.reranker import Reranker, similarity_of
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import fit
from tests.models.test_reranker import all_scores

TERMS = ("pointwise", "listwise", "listwise_score")
PARAMS = TeacherParams(
    steps=1,
    queries=4,
    positives=2,
    hard_negatives=1,
    random_negatives=2,
    similarity=5.0,
    pointwise=1.0,
    listwise=1.0,
    listwise_score=0.5,
    lora_rank=0,
    gradient_checkpointing=False,
    optimizer="adamw",
    learning_rate=3e-3,
)


@pytest.fixture
def mined(judgements) -> np.ndarray:
    """Two wrong, judged documents for each query, and a filler."""
    rows = np.full((len(judgements.query_ids), 3), -1)
    for query, grades in enumerate(judgements.grades):
        rows[query, :2] = [row for row in judgements.positive_for_any if row not in grades][:2]
    return rows


@pytest.fixture
def make_module(backbone, prompt, judgements, query_ids, document_ids, mined):
    """A training module on the toy data with some settings changed."""

    def make(**changes) -> TeacherModule:
        params = dataclasses.replace(PARAMS, **changes)
        asked, read = unit(backbone.encode(query_ids, 12)), unit(backbone.encode(document_ids, 8))
        texts = judgements, query_ids, document_ids
        return TeacherModule(backbone, prompt, *texts, asked, read, mined, params, seed=0)

    return make


def test_candidates_of_a_query(make_module, judgements, mined):
    """A positive is trained on as wrong, a document comes twice, or one that nobody judged is taken for wrong."""
    module, rng = make_module(hard_negatives=2, random_negatives=3), np.random.default_rng(0)
    for query, grades in enumerate(judgements.grades):
        for _ in range(20):
            chosen = module.candidates(query, rng)
            assert len(set(chosen)) == len(chosen) and chosen[0] in grades
            assert sum(row in grades for row in chosen) == min(2, len(grades))
            assert set(chosen) <= set(judgements.positive_for_any.tolist())
            assert set(mined[query, :2].tolist()) <= set(chosen)


def test_copies_and_the_query_itself_are_no_candidates(make_module, judgements):
    """P06, P07: the query itself, or a copy of a right document, is trained on as wrong."""
    module, rng = make_module(random_negatives=3), np.random.default_rng(0)
    own = next(row for row in judgements.positive_for_any.tolist() if row not in judgements.grades[0])
    right = next(iter(judgements.grades[0]))
    copies = np.arange(len(judgements.doc_ids))
    copy = next(row for row in range(right + 1, 8) if row not in judgements.positive_for_any)
    copies[copy] = right
    grades = [{**known, copy: known[right]} if right in known else known for known in judgements.grades]
    module.judgements = dataclasses.replace(
        judgements,
        grades=grades,
        positive_for_any=np.sort([*judgements.positive_for_any, copy]),
        ignored=[frozenset([own]), *judgements.ignored[1:]],
        first_copy=copies,
    )
    module.negatives = np.full_like(module.negatives, -1)
    for _ in range(30):
        chosen = module.candidates(0, rng)
        assert own not in chosen and copy not in chosen
        assert {right, copy}.isdisjoint(row for row in module.candidates(0, rng)[1:] if row not in grades[0])


def drawn(module: TeacherModule, seed: int) -> list[tuple[int, list[int]]]:
    """The queries of a step with their candidates, drawn as the module draws them."""
    rng = np.random.default_rng(seed)
    queries = module.judgements.sample_queries(module.params.queries, rng)
    return [(int(query), module.candidates(int(query), rng)) for query in queries]


def log_shares(scores: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of one list."""
    return scores - np.log(np.exp(scores).sum())


def test_every_term_by_its_definition(make_module, backbone, prompt, judgements, query_ids, document_ids):
    """A weight does nothing, yes and no are swapped, or the teacher is trained on other scores than it is used with."""
    module = make_module(pointwise=0.4, listwise=1.5, listwise_score=2.0, similarity=3.0)
    with torch.no_grad():
        found = {name: float(term) for name, term in module.losses(np.random.default_rng(7)).items()}
    assert similarity_of(backbone) == 3.0 == Reranker(backbone, prompt, backbone).similarity
    scores = all_scores(backbone, prompt, query_ids, document_ids)
    asked, read = unit(backbone.encode(query_ids, 12)), unit(backbone.encode(document_ids, 8))
    logits = scores - 3.0 * asked @ read.T
    right, wrong, alone, whole = [], [], [], []
    for query, rows in drawn(module, 7):
        grades = np.array([judgements.grades[query].get(row, 0) for row in rows])
        right += np.log1p(np.exp(-logits[query, rows][grades > 0])).tolist()  # -log p(yes)
        wrong += np.log1p(np.exp(logits[query, rows][grades == 0])).tolist()
        alone.append(-(grades / grades.sum() * log_shares(logits[query, rows])).sum())
        whole.append(-(grades / grades.sum() * log_shares(scores[query, rows])).sum())
    assert len(right) > 4 and len(wrong) > 8, "several of both"
    wanted = {
        "pointwise": 0.4 * (np.mean(right) + np.mean(wrong)) / 2,
        "listwise": 1.5 * np.mean(alone),
        "listwise_score": 2.0 * np.mean(whole),
    }
    assert found == pytest.approx(wanted, abs=1e-3)


def test_documents_that_nobody_judged_are_in_no_term(make_module, judgements):
    """A document that is new to the corpus is trained on as wrong for every query that is near to it."""
    new = judgements.doc_ids.index("bucket")
    module, terms = make_module(random_negatives=0, positives=1), []
    for mined in (-1, new):  # of one hard negative all are drawn, so that the rest of a step is the same
        module.negatives = np.full((len(judgements.query_ids), 1), mined)
        found = module.losses(np.random.default_rng(1))
        terms.append({name: float(term.detach()) for name, term in found.items()})
    assert all(new in chosen for _, chosen in drawn(module, 1)), "it is a candidate of every query"
    assert terms[0] == pytest.approx(terms[1], abs=1e-4)


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_weight_zero_is_not_computed(make_module, term):
    """The ablation without a term still trains with it, or pays for it."""
    assert set(make_module(**{term: 0.0}).losses(np.random.default_rng(0))) == set(TERMS) - {term}


def test_the_cosine_is_that_of_the_bi_encoder(make_module, backbone):
    """The teacher learns beside a cosine of its own weights, which is another one at every step."""
    module = make_module(pointwise=0.0)
    before = {name: float(term.detach()) for name, term in module.losses(np.random.default_rng(2)).items()}
    module.document_embeddings = -module.document_embeddings
    after = {name: float(term.detach()) for name, term in module.losses(np.random.default_rng(2)).items()}
    assert after["listwise"] == before["listwise"] and abs(after["listwise_score"] - before["listwise_score"]) > 1e-3


@pytest.mark.parametrize("term", TERMS)
def test_gradients_reach_the_backbone(make_module, backbone, term):
    """Documents read once are cut off from the loss: only the query side would learn."""
    off = {name: 0.0 for name in TERMS if name != term}
    make_module(**off).losses(np.random.default_rng(0))[term].backward()
    missing = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_one_batch_is_overfitted(make_module):
    """The teacher cannot learn what it is shown."""
    module = make_module(positives=1, similarity=0.0, listwise_score=0.0)
    optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
    losses = []
    while len(losses) < 200 and not (losses and losses[-1] < 0.02 * losses[0]):  # it jumps: a last step would be chance
        optimizer.zero_grad()
        loss = sum(module.losses(np.random.default_rng(3)).values())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] > 1 and losses[-1] < 0.02 * losses[0]


def test_training_ranks_the_toy_positives_first(
    make_module, make_backbone, backbone, prompt, judgements, query_ids, document_ids
):
    """The parts fit together but the whole does not learn: sign, shuffled rows, or the wrong candidates."""
    fit(make_module(steps=60), "teacher")
    scores = all_scores(backbone, prompt, query_ids, document_ids, make_backbone())[:, judgements.positive_for_any]
    best = judgements.positive_for_any[scores.argmax(1)]
    assert sum(judgements.grades[query].get(int(row), 0) == 2 for query, row in enumerate(best)) >= 8, "chance: 2 of 12"


def test_resumed_teacher_equals_the_uninterrupted_one(make_module, make_backbone, monkeypatch, tmp_path):
    """Something the real module draws or keeps between steps is not restored from a checkpoint."""
    monkeypatch.setattr("rabtriever.training.trainer.CHECKPOINT_SECONDS", 0)

    def run(kill_at: int, checkpoints) -> torch.Tensor:
        module = make_module(steps=6)
        module.backbone = make_backbone()
        plain = module.losses
        module.losses = lambda rng: plain(rng) if module.global_step != kill_at else 1 / 0
        fit(module, "teacher", checkpoints)
        return torch.nn.utils.parameters_to_vector(module.backbone.parameters())

    expected = run(-1, None)
    with pytest.raises(ZeroDivisionError):
        run(4, tmp_path / "scratch")
    assert torch.equal(run(-1, tmp_path / "scratch"), expected)
