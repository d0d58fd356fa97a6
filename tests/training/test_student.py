"""The student: what is trained and what is frozen, which candidates count, and adapters on the query side."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.lm.adapters import add_lora
from rabtriever.lm.answer import yes_no_logit
from rabtriever.models.document_terms import ScoreWeights, encoded_documents
from rabtriever.models.predictor import FoldablePredictor
from rabtriever.training.losses import listwise_loss
from rabtriever.training.student import DistillationData, StudentModule, StudentParams
from rabtriever.training.trainer import fit

TERMS = ("mse", "logits", "listwise", "labels")
PARAMS = StudentParams(
    steps=1,
    queries=4,
    mse=1.0,
    logits=1.0,
    logit_pairs=1000,
    listwise=1.0,
    divergence="reverse",
    vocabulary="all",
    labels=1.0,
    query_adapter="none",
    lora_rank=2,
    learning_rate=3e-3,
    encoder_learning_rate=1e-3,
    weight_decay=0.0,
)
QUERIES, DOCUMENTS, CANDIDATES = 6, 9, 5


@pytest.fixture
def data(backbone, prompt, query_ids, document_ids) -> DistillationData:
    """Annotations of six toy queries by a teacher with random weights; the last query has one candidate less."""
    rng = np.random.default_rng(0)
    candidates = torch.from_numpy(np.stack([rng.permutation(8)[:CANDIDATES] for _ in range(QUERIES)]))
    candidates[-1, -1] = -1
    head = backbone.head_weight.detach() * 20  # an untrained head gives scores near zero
    pairs = [document_ids[d] + query_ids[q] for q in range(QUERIES) for d in candidates[q]]
    targets = torch.from_numpy(backbone.encode(pairs, 8)).reshape(QUERIES, CANDIDATES, 32)
    grades = torch.zeros(QUERIES, CANDIDATES)
    grades[:, 0], grades[:, 1], grades[:, 2] = 2, 1, -1
    return DistillationData(
        query_embeddings=torch.from_numpy(backbone.encode(query_ids[:QUERIES], 8)),
        documents=encoded_documents(backbone.encode(document_ids, 8), ScoreWeights()),
        candidates=candidates,
        target_states=targets.half(),
        target_scores=yes_no_logit(targets, head, prompt.yes_id, prompt.no_id),
        grades=grades,
        head_weight=head,
        yes_id=prompt.yes_id,
        no_id=prompt.no_id,
        direction=head[prompt.yes_id] - head[prompt.no_id],
        query_ids=query_ids[:QUERIES],
    )


@pytest.fixture
def make_module(data):
    """A student with a fresh, standardised predictor and some settings changed."""

    def make(query_encoder=None, facts=data, similarity=0.0, **changes) -> StudentModule:
        torch.manual_seed(2)
        predictor = FoldablePredictor(32, 24, 8, similarity)
        listed = facts.candidates >= 0
        predictor.standardise(facts.query_embeddings, facts.documents.states, facts.target_states[listed].float())
        return StudentModule(predictor, facts, dataclasses.replace(PARAMS, **changes), 0, query_encoder)

    return make


def only(term: str) -> dict[str, float]:
    """Weights that leave one term."""
    return {name: float(name == term) for name in TERMS}


@pytest.mark.parametrize("term", TERMS)
def test_only_the_predictor_has_gradients(make_module, data, backbone, term):
    """The frozen teacher moves while it is distilled, so the index no longer fits the scores; or a term is dead."""
    for tensor in (data.head_weight, data.query_embeddings, data.documents.states, data.target_scores):
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


@pytest.mark.parametrize("vocabulary", ["all", "answers"])
@pytest.mark.parametrize("divergence", ["reverse", "forward"])
def test_a_perfect_student_has_no_loss(make_module, data, divergence, vocabulary):
    """The loss asks for something other than the teacher's states, scores and logits."""
    predictor = make_module().predictor
    with torch.no_grad():
        states = predictor(data.query_embeddings[:, None], data.documents.states[data.candidates.clamp(min=0)])
    scores = yes_no_logit(states, data.head_weight, data.yes_id, data.no_id)
    facts = dataclasses.replace(data, target_states=states, target_scores=scores)
    params = dataclasses.replace(PARAMS, labels=0.0, divergence=divergence, vocabulary=vocabulary)
    terms = StudentModule(predictor, facts, params, 0).losses(np.random.default_rng(0))
    assert set(terms) == {"mse", "logits", "listwise"}
    assert all(abs(float(value.detach())) < 1e-6 for value in terms.values()), terms


def expectation(student: torch.Tensor, teacher: torch.Tensor, divergence: str = "reverse") -> float:
    """The divergence of scores of the last dimension by its definition; the mean over the others."""
    p, q = student.double().softmax(-1), teacher.double().softmax(-1)
    terms = p * (p / q).log() if divergence == "reverse" else q * (q / p).log()
    return float(terms.sum(-1).mean())


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
def test_the_divergence_is_that_of_both_terms(make_module, data, divergence):
    """The ablation turns one of the two around, or none (probabilities by hand, all queries and pairs)."""
    module = make_module(mse=0.0, labels=0.0, queries=QUERIES, divergence=divergence)
    with torch.no_grad():
        found = module.losses(np.random.default_rng(0))
        states = module.predictor(data.query_embeddings[:, None], data.documents.states[data.candidates.clamp(min=0)])
    mask, head = data.candidates >= 0, data.head_weight.T
    logits = expectation(states[mask] @ head, data.target_states[mask].float() @ head, divergence)
    assert float(found["logits"]) == pytest.approx(logits, rel=1e-3)
    scores = yes_no_logit(states, data.head_weight, data.yes_id, data.no_id)
    lists = [
        expectation(student[kept], teacher[kept], divergence)
        for student, teacher, kept in zip(scores, data.target_scores, mask, strict=True)
    ]
    assert float(found["listwise"]) == pytest.approx(np.mean(lists), rel=1e-3)


def test_answers_alone_are_a_binary_divergence(make_module, data):
    """Other tokens than the two answers still count, or the two are not normalised to one (by the log odds)."""
    module = make_module(**only("logits"), queries=QUERIES, vocabulary="answers")
    mask = data.candidates >= 0
    with torch.no_grad():
        found = float(module.losses(np.random.default_rng(0))["logits"])
        states = module.predictor(data.query_embeddings[:, None], data.documents.states[data.candidates.clamp(min=0)])
    odds = [
        yes_no_logit(part[mask].double(), data.head_weight.double(), data.yes_id, data.no_id)
        for part in (states, data.target_states)
    ]
    yes, wanted = (part.sigmoid() for part in odds)
    binary = yes * (yes / wanted).log() + (1 - yes) * ((1 - yes) / (1 - wanted)).log()
    assert found == pytest.approx(float(binary.mean()), rel=1e-4)


def test_fillers_do_not_count(make_module, data):
    """Padding of the candidate lists is trained on as a document."""
    spoiled = dataclasses.replace(
        data,
        target_states=data.target_states.clone(),
        target_scores=data.target_scores.clone(),
        grades=data.grades.clone(),
    )
    spoiled.target_states[-1, -1], spoiled.target_scores[-1, -1], spoiled.grades[-1, -1] = 60000.0, 1e6, 3
    losses = [make_module(facts=facts, queries=9).losses(np.random.default_rng(0)) for facts in (data, spoiled)]
    for term in TERMS:
        assert float(losses[0][term].detach()) == float(losses[1][term].detach()), term


def test_possible_false_negatives_never_act_as_negatives(make_module, data):
    """A document that the teacher thinks right is pushed down, because nobody has judged it."""
    other = data.candidates.clone()
    other[:, 2] = (other[:, 2] + 1) % 8  # another document where the grade is -1

    def label_loss(candidates: torch.Tensor, grade: float) -> float:
        grades = data.grades.clone()
        grades[:, 2] = grade
        facts = dataclasses.replace(data, candidates=candidates, grades=grades)
        return float(make_module(facts=facts, **only("labels")).losses(np.random.default_rng(0))["labels"].detach())

    assert label_loss(data.candidates, -1) == label_loss(other, -1)
    assert label_loss(data.candidates, 0) != label_loss(other, 0)
    assert label_loss(data.candidates, 0) > label_loss(data.candidates, -1), "a negative more is a larger loss"


def test_label_loss_is_the_listwise_one(make_module, data):
    """The labels are mixed in with another loss than the teacher's (all queries at once, so their order is nothing)."""
    module = make_module(**only("labels"), queries=QUERIES)
    with torch.no_grad():
        states = module.predictor(data.query_embeddings[:, None], data.documents.states[data.candidates.clamp(min=0)])
        scores = yes_no_logit(states, data.head_weight, data.yes_id, data.no_id)
        usable = (data.candidates >= 0) & (data.grades >= 0)
        expected = listwise_loss(scores, data.grades.clamp(min=0), usable)
        found = module.losses(np.random.default_rng(0))["labels"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_labels_without_any_positive(make_module, data):
    """A batch none of whose queries has a positive among its candidates gives NaN and stops the run."""
    nothing = dataclasses.replace(data, grades=torch.minimum(data.grades, torch.zeros(1)))
    module = make_module(facts=nothing, **only("labels"))
    loss = module.losses(np.random.default_rng(0))["labels"]
    loss.backward()
    assert float(loss.detach()) == 0
    assert all(torch.isfinite(p.grad).all() for p in module.predictor.parameters() if p.grad is not None)


def test_the_batch_is_overfitted(make_module, data):
    """The predictor cannot learn what it is shown, or ranks otherwise than the teacher after having learnt it."""
    module = make_module(labels=0.0, queries=QUERIES)
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
        documents = data.documents.states[data.candidates[:-1]]
        predicted = module.predictor(data.query_embeddings[:-1, None], documents)
        scores = yes_no_logit(predicted, data.head_weight, data.yes_id, data.no_id)
    wanted = data.target_scores[:-1]
    assert float((scores - wanted).abs().max()) < 0.2 * float(wanted.std())


def test_logits_of_some_pairs_only(make_module):
    """The wide head is computed for every pair although the settings limit it."""
    for limit, expected in ((3, 3), (1000, QUERIES * CANDIDATES - 1)):
        module, outputs = make_module(**only("logits"), queries=QUERIES, logit_pairs=limit), []
        module.predictor.register_forward_hook(lambda _, __, output, kept=outputs: kept.append(output))
        loss = module.losses(np.random.default_rng(0))["logits"]
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert int(gradient.abs().sum(-1).gt(0).sum()) == expected


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_query_adapter(make_module, make_backbone, data, adapter):
    """The query encoder is not trained, at the wrong rate, or drags the frozen teacher along."""
    encoder = make_backbone()
    frozen = encoder.head_weight.detach().clone()
    if adapter == "lora":
        add_lora(encoder, 2)
    module = make_module(query_encoder=encoder, query_adapter=adapter)
    groups = module.configure_optimizers()["optimizer"].param_groups
    assert {g["initial_lr"] for g in groups if g["params"]} == {3e-3, 1e-3}
    trainable = [p for p in encoder.parameters() if p.requires_grad]
    assert sum(len(g["params"]) for g in groups if g["initial_lr"] == 1e-3) == len(trainable) > 0
    with torch.no_grad():  # at first the encoder is the teacher, and the cached states are its own
        live = make_module().losses(np.random.default_rng(0))
        cached = module.losses(np.random.default_rng(0))
    assert all(float(live[term]) == pytest.approx(float(cached[term]), abs=1e-4) for term in TERMS)
    before = encoder.encode(data.query_ids, 8)
    module.params = dataclasses.replace(module.params, steps=3)
    module.steps = 3
    fit(module, "student")
    assert np.abs(encoder.encode(data.query_ids, 8) - before).max() > 1e-4
    assert torch.equal(encoder.head_weight.detach(), frozen) == (adapter == "lora")


def test_query_adapter_leaves_what_is_read_alone(make_module, make_backbone, data):
    """With a reader apart, the adapter's states are given to the predictor, or the reader's are lost."""
    read = torch.randn_like(data.query_embeddings)
    wide = dataclasses.replace(data, query_embeddings=torch.cat([data.query_embeddings, read], dim=-1))
    module = make_module(query_encoder=make_backbone(), facts=wide, query_adapter="full")
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(module._query_states(wide, rows), wide.query_embeddings[rows])
    module.losses(np.random.default_rng(0))["listwise"].backward()
    grads = [p.grad for p in module.query_encoder.parameters() if p.grad is not None]
    assert not grads or not any(grad.abs().sum() for grad in grads), "without a similarity nothing compares"
    module = make_module(query_encoder=make_backbone(), facts=wide, query_adapter="full", similarity=2.0)
    module.losses(np.random.default_rng(0))["listwise"].backward()
    assert sum(p.grad.abs().sum() for p in module.query_encoder.parameters() if p.grad is not None) > 0


def test_scores_are_compared_with_what_is_known(make_module, data):
    """The predictor is to explain the whole score of the teacher, or other states are compared than at search."""
    document_vectors, document_bias = (
        3.0 * torch.randn_like(data.documents.states),
        torch.randn(len(data.documents.states)),
    )
    facts = dataclasses.replace(
        data, documents=data.documents._replace(document_vectors=document_vectors, document_bias=document_bias)
    )
    module = make_module(facts=facts, similarity=2.0, queries=QUERIES, **only("listwise"))
    rows, mask = data.candidates.clamp(min=0), data.candidates >= 0
    with torch.no_grad():
        found = module.losses(np.random.default_rng(0))["listwise"]
        said = module.predictor(data.query_embeddings[:, None], data.documents.states[rows]) @ data.direction
    asked = data.query_embeddings / data.query_embeddings.norm(dim=1, keepdim=True)
    scores = said + 2.0 * torch.einsum("qh,qch->qc", asked, document_vectors[rows]) + document_bias[rows]
    lists = [
        expectation(ours[kept], teachers[kept])
        for ours, teachers, kept in zip(scores, data.target_scores, mask, strict=True)
    ]
    assert float(found) == pytest.approx(np.mean(lists), rel=1e-3)


def test_same_seed_same_student(make_module):
    """Two distillations from the same annotations differ."""
    vectors = []
    for _ in range(2):
        module = make_module(steps=5)
        fit(module, "student")
        vectors.append(torch.nn.utils.parameters_to_vector(module.predictor.parameters()))
    assert torch.equal(*vectors)
