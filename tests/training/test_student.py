"""The student: what is trained and what is frozen, which candidates count, and every term of its loss."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.lm.answer import yes_no_logit
from rabtriever.models.predictor import Predictor
from rabtriever.training import student
from rabtriever.training.student import DistillationData, StudentModule, StudentParams
from rabtriever.training.trainer import fit

TERMS = ("mse", "logits", "listwise")
PARAMS = StudentParams(
    steps=1,
    queries=4,
    mse=1.0,
    logits=1.0,
    listwise=1.0,
    learning_rate=3e-3,
)
QUERIES, DOCUMENTS, CANDIDATES = 6, 9, 5


@pytest.fixture
def data(backbone, prompt, query_ids, document_ids) -> DistillationData:
    """Labels of six toy queries by a teacher with random weights; the last query has one candidate less."""
    rng = np.random.default_rng(0)
    candidates = torch.from_numpy(np.stack([rng.permutation(8)[:CANDIDATES] for _ in range(QUERIES)]))
    candidates[-1, -1] = -1
    head = backbone.head_weight.detach() * 20  # an untrained head gives scores near zero
    pairs = [document_ids[d] + query_ids[q] for q in range(QUERIES) for d in candidates[q]]
    targets = torch.from_numpy(backbone.encode(pairs, 8)).reshape(QUERIES, CANDIDATES, 32)
    return DistillationData(
        query_embeddings=torch.from_numpy(backbone.encode(query_ids[:QUERIES], 8)),
        document_embeddings=torch.from_numpy(backbone.encode(document_ids, 8)),
        candidates=candidates,
        target_states=targets.half(),
        target_scores=yes_no_logit(targets, head, prompt.yes_id, prompt.no_id),
        head_weight=head,
        direction=head[prompt.yes_id] - head[prompt.no_id],
    )


@pytest.fixture
def make_module(data):
    """A student with a fresh, standardised predictor and some settings changed."""

    def make(facts=data, similarity=0.0, **changes) -> StudentModule:
        torch.manual_seed(2)
        predictor = Predictor(32, 24, 8, similarity)
        listed = facts.candidates >= 0
        predictor.standardise(facts.query_embeddings, facts.document_embeddings, facts.target_states[listed].float())
        return StudentModule(predictor, facts, dataclasses.replace(PARAMS, **changes), seed=0)

    return make


def only(term: str) -> dict[str, float]:
    """Weights that leave one term."""
    return {name: float(name == term) for name in TERMS}


@pytest.mark.parametrize("term", TERMS)
def test_only_the_predictor_has_gradients(make_module, data, backbone, term):
    """The frozen teacher moves while it is distilled, so the index no longer fits the scores; or a term is dead."""
    for tensor in (data.head_weight, data.query_embeddings, data.document_embeddings, data.target_scores):
        tensor.requires_grad_()
    module = make_module(**only(term))
    terms = module.losses(np.random.default_rng(0))
    assert set(terms) == {term}
    terms[term].backward()
    assert all(p.grad is not None for p in module.predictor.parameters())
    assert module.predictor.out.weight.grad.abs().sum() > 0
    assert {id(p) for p in module.parameters()} == {id(p) for p in module.predictor.parameters()}
    assert all(p.grad is None for p in backbone.parameters())
    assert data.target_scores.grad is None


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_weight_zero_is_not_computed(make_module, term):
    """The ablation without a term still trains with it."""
    assert set(make_module(**{term: 0.0}).losses(np.random.default_rng(0))) == set(TERMS) - {term}


def test_weights_scale_their_terms(make_module):
    """A weight of the settings does nothing."""
    one, three = (make_module(**{**dict.fromkeys(TERMS, weight)}) for weight in (1.0, 3.0))
    ones, threes = one.losses(np.random.default_rng(0)), three.losses(np.random.default_rng(0))
    for term in TERMS:
        assert float(threes[term].detach()) == pytest.approx(3 * float(ones[term].detach()), rel=1e-5)
        assert float(ones[term].detach()) > 0


def predicted(module: StudentModule, data: DistillationData) -> torch.Tensor:
    """(Q, C, H) what the student makes of every query and candidate."""
    with torch.no_grad():
        documents = data.document_embeddings[data.candidates.clamp(min=0)]
        return module.predictor(data.query_embeddings[:, None], documents)


def test_a_perfect_student_has_no_loss(make_module, data):
    """The loss asks for something other than the teacher's states, scores and logits."""
    states = predicted(make_module(), data)
    facts = dataclasses.replace(data, target_states=states, target_scores=states @ data.direction)
    predictor = make_module().predictor
    terms = StudentModule(predictor, facts, PARAMS, seed=0).losses(np.random.default_rng(0))
    assert set(terms) == set(TERMS)
    assert all(abs(float(value.detach())) < 1e-6 for value in terms.values()), terms


def expectation(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """KL(student || teacher) of scores of the last dimension by its definition; the mean over the others."""
    p, q = student.double().softmax(-1), teacher.double().softmax(-1)
    return float((p * (p / q).log()).sum(-1).mean())


def test_every_term_by_its_definition(make_module, data):
    """A divergence is turned around, a filler counts, or an error is taken of other states (all queries and pairs)."""
    module = make_module(queries=QUERIES, mse=0.5, logits=2.0, listwise=3.0)
    with torch.no_grad():
        found = module.losses(np.random.default_rng(0))
    states, mask, head = predicted(module, data), data.candidates >= 0, data.head_weight.T
    targets = data.target_states.float()
    errors = (states[mask] - targets[mask]) / targets[mask].std(0, correction=0)
    assert float(found["mse"]) == pytest.approx(0.5 * float(errors.pow(2).mean()), rel=1e-3)
    logits = expectation(states[mask] @ head, targets[mask] @ head)
    assert float(found["logits"]) == pytest.approx(2.0 * logits, rel=1e-3)
    lists = [
        expectation((ours @ data.direction)[kept], teachers[kept])
        for ours, teachers, kept in zip(states, data.target_scores, mask, strict=True)
    ]
    assert float(found["listwise"]) == pytest.approx(3.0 * np.mean(lists), rel=1e-3)


def test_the_whole_score_is_compared(make_module, data):
    """The predictor is asked to explain the cosine too, which the score has anyway."""
    module = make_module(similarity=5.0, queries=QUERIES, **only("listwise"))
    with torch.no_grad():
        found = module.losses(np.random.default_rng(0))["listwise"]
    rows, mask = data.candidates.clamp(min=0), data.candidates >= 0
    asked, read = (side / side.norm(dim=1, keepdim=True) for side in (data.query_embeddings, data.document_embeddings))
    scores = predicted(module, data) @ data.direction + 5.0 * torch.einsum("qh,qch->qc", asked, read[rows])
    lists = [
        expectation(ours[kept], teachers[kept])
        for ours, teachers, kept in zip(scores, data.target_scores, mask, strict=True)
    ]
    assert float(found) == pytest.approx(np.mean(lists), rel=1e-3)


def test_fillers_do_not_count(make_module, data):
    """Padding of the candidate lists is trained on as a document."""
    spoiled = dataclasses.replace(
        data,
        target_states=data.target_states.clone(),
        target_scores=data.target_scores.clone(),
    )
    spoiled.target_states[-1, -1], spoiled.target_scores[-1, -1] = 60000.0, 1e6
    losses = [make_module(facts=facts, queries=9).losses(np.random.default_rng(0)) for facts in (data, spoiled)]
    for term in TERMS:
        assert float(losses[0][term].detach()) == float(losses[1][term].detach()), term


def test_the_batch_is_overfitted(make_module, data):
    """The predictor cannot learn what it is shown, or ranks otherwise than the teacher after having learnt it."""
    module = make_module(queries=QUERIES)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for step in range(200):
        optimizer.zero_grad()
        loss = sum(module.losses(np.random.default_rng(step)).values())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
    with torch.no_grad():
        documents = data.document_embeddings[data.candidates[:-1]]
        scores = module.predictor(data.query_embeddings[:-1, None], documents) @ data.direction
    wanted = data.target_scores[:-1]
    assert float((scores - wanted).abs().max()) < 0.2 * float(wanted.std())


def test_logits_of_some_pairs_only(make_module, monkeypatch):
    """The wide head is computed for every pair, or a filler takes a pair's place."""
    for limit, expected in ((3, 3), (1000, QUERIES * CANDIDATES - 1)):
        monkeypatch.setattr(student, "LOGIT_PAIRS", limit)
        module, outputs = make_module(**only("logits"), queries=QUERIES), []
        module.predictor.register_forward_hook(lambda _, __, output, kept=outputs: kept.append(output))
        loss = module.losses(np.random.default_rng(0))["logits"]
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert int(gradient.abs().sum(-1).gt(0).sum()) == expected
        assert not gradient[fillers(module)].any()


def fillers(module: StudentModule) -> torch.Tensor:
    """(B, C) bool: which of the pairs of the step above is no pair."""
    rows = np.random.default_rng(0).choice(QUERIES, size=QUERIES, replace=False)
    return module.data.candidates[torch.from_numpy(rows)] < 0


def test_same_seed_same_student(make_module):
    """Two distillations from the same labels differ."""
    vectors = []
    for _ in range(2):
        module = make_module(steps=5)
        fit(module, "student")
        vectors.append(torch.nn.utils.parameters_to_vector(module.predictor.parameters()))
    assert torch.equal(*vectors)
