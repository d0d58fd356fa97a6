"""The teacher's training: its candidates, its loss, and what the gradients reach."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.models.document_terms import score_weights
from rabtriever.training.losses import listwise_loss, reranker_loss
from rabtriever.training.preference import PreferenceModule
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import fit
from tests.models.test_reranker import all_scores

TOLERANCE = 2e-5  # float32, states of unit variance; the cache changes the shapes, and so the order of sums
PARAMS = TeacherParams(
    steps=1,
    queries=4,
    positives=2,
    hard_negatives=1,
    random_negatives=2,
    mining_depth=3,
    similarity=0.0,
    listwise=1.0,
    yes_no_logit=0.0,
    pointwise=1.0,
    agreement=0.0,
    unlabelled=0,
    contrastive=0.3,
    temperature=0.1,
    reader_steps=0,
    column=0.0,
    column_queries=2,
    lora_rank=0,
    gradient_checkpointing=False,
    dpo_steps=0,
    dpo_beta=0.5,
    dpo_learning_rate=3e-3,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.0,
    start_share=0.0,
    fit_depth=0,
    document_terms=False,
)


@pytest.fixture
def mined(judgements) -> tuple[np.ndarray, np.ndarray]:
    """Two wrong, judged documents for each query, and a filler; and the documents without a judgement."""
    rows = np.full((len(judgements.query_ids), 3), -1)
    for query, grades in enumerate(judgements.grades):
        rows[query, :2] = [row for row in judgements.positive_for_any if row not in grades][:2]
    return rows, np.tile(judgements.unjudged, (len(rows), 1))


@pytest.fixture
def make_module(backbone, prompt, judgements, query_ids, document_ids, mined):
    """A training module on the toy data with some settings changed."""

    def make(**changes) -> TeacherModule:
        params = dataclasses.replace(PARAMS, **changes)
        return TeacherModule(backbone, prompt, judgements, query_ids, document_ids, mined, params, seed=0)

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
            assert set(mined[0][query, :2]) <= set(chosen)


def test_copies_and_the_query_itself_are_no_candidates(make_module, judgements):
    """P06, P07: the query itself, or a copy of a right document, is trained on as wrong."""
    module, rng = make_module(random_negatives=3), np.random.default_rng(0)
    own = next(row for row in judgements.positive_for_any.tolist() if row not in judgements.grades[0])
    right = next(iter(judgements.grades[0]))
    copies = np.arange(len(judgements.doc_ids))
    copy = next(row for row in judgements.unjudged.tolist() if row > right)
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
    module.unlabelled = np.full_like(module.unlabelled, -1)
    for _ in range(30):
        chosen = module.candidates(0, rng)
        assert own not in chosen and copy not in chosen
        assert {right, copy}.isdisjoint(row for row in module.candidates(0, rng)[1:] if row not in grades[0])


def test_the_loss_is_that_of_the_scores_at_work(make_module, backbone, prompt, judgements, query_ids, document_ids):
    """The teacher is trained on other scores than those it is used with."""
    module = make_module(contrastive=0.0, pointwise=0.5)
    with torch.no_grad():
        terms = module.losses(np.random.default_rng(7))
    rng = np.random.default_rng(7)
    queries = judgements.sample_queries(PARAMS.queries, rng)
    candidates = [module.candidates(int(query), rng) for query in queries]
    scores = torch.tensor(all_scores(backbone, prompt, query_ids, document_ids))
    width = max(map(len, candidates))
    padded = torch.tensor([chosen + [0] * (width - len(chosen)) for chosen in candidates])
    mask = torch.tensor([[place < len(chosen) for place in range(width)] for chosen in candidates])
    asked = scores[torch.from_numpy(queries)].gather(1, padded)
    grades = torch.tensor(
        [[float(judgements.grades[q].get(int(d), 0)) for d in row] for q, row in zip(queries, padded, strict=True)]
    )
    assert set(terms) == {"pointwise", "listwise"}
    assert float(terms["pointwise"]) == pytest.approx(0.5 * float(reranker_loss(asked, grades, mask)), abs=1e-4)
    assert float(terms["listwise"]) == pytest.approx(float(listwise_loss(asked, grades, mask)), abs=1e-4)


def test_the_contrastive_term_is_that_of_the_cosines(make_module, backbone, judgements, query_ids, document_ids):
    """The temperature or the weight does nothing, or documents that nobody judged for a query are pushed away."""
    module, temperature, weight = make_module(temperature=0.2, contrastive=0.3, unlabelled=1, agreement=0.5), 0.2, 0.3
    with torch.no_grad():
        found = module.losses(np.random.default_rng(7))["contrastive"]
        queries, batch, column, _ = module.batch(np.random.default_rng(7))
    asked, read = unit(backbone.encode(query_ids, 12)), unit(backbone.encode(document_ids, 8))
    losses = []
    for query, documents in zip(queries.tolist(), batch.documents.tolist(), strict=True):
        wrong = [row for row in column if row in judgements.positive_for_any and row not in judgements.grades[query]]
        logits = asked[query] @ read[[documents[0], *wrong]].T / temperature
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
    assert float(found) == pytest.approx(weight * np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("term", ["pointwise", "listwise", "contrastive"])
def test_a_term_of_weight_zero_is_not_computed(make_module, term):
    """The ablation without a term still trains with it, or pays for it."""
    assert set(make_module(**{term: 0.0}).losses(np.random.default_rng(0))) == {
        "pointwise",
        "listwise",
        "contrastive",
    } - {term}


@pytest.mark.parametrize("term", ["pointwise", "listwise", "contrastive"])
def test_gradients_reach_the_backbone(make_module, backbone, term):
    """Documents read once are cut off from the loss: only the query side would learn."""
    off = {name: 0.0 for name in ("pointwise", "listwise", "contrastive") if name != term}
    make_module(**off).losses(np.random.default_rng(0))[term].backward()
    missing = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert missing == []


def test_one_batch_is_overfitted(make_module):
    """The teacher cannot learn what it is shown."""
    module = make_module(positives=1, contrastive=0.0)
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


def test_training_ranks_the_toy_positives_first(make_module, backbone, prompt, judgements, query_ids, document_ids):
    """The parts fit together but the whole does not learn: sign, shuffled rows, or the wrong candidates."""
    fit(make_module(steps=100), "teacher")
    scores = all_scores(backbone, prompt, query_ids, document_ids)[:, judgements.positive_for_any]
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


def divergence(yes_no_logit: torch.Tensor, cosine: torch.Tensor, mask: torch.Tensor) -> float:
    """KL(similarity || yes_no_logit) over the candidates of each query, by hand; its mean."""
    found = []
    for said, near, listed in zip(yes_no_logit, cosine / PARAMS.temperature, mask, strict=True):
        p, q = said[listed].log_softmax(-1), near[listed].log_softmax(-1)
        found.append(float((q.exp() * (q - p)).sum()))
    return float(np.mean(found))


def test_unlabelled_documents_reach_the_agreement_term_only(make_module, judgements):
    """A document without a judgement is trained on as wrong, or never seen at all; or a term has another formula."""
    module = make_module(similarity=5.0, yes_no_logit=0.7, agreement=0.5, unlabelled=1, pointwise=0.3, listwise=1.2)
    with torch.no_grad():
        terms = module.losses(np.random.default_rng(1))
        queries, batch, column, prefix = module.batch(np.random.default_rng(1))
        yes_no_logit = module.yes_no_logit(queries, batch, prefix)
        near = module.cosine(queries, column, prefix).gather(1, batch.columns)
    new = torch.isin(batch.documents, torch.from_numpy(judgements.unjudged)) & batch.mask
    assert (new.sum(1) == 1).all() and torch.equal(batch.eligible, batch.mask & ~new)
    alone = {"yes_no_logit": [], "listwise": []}
    for said, cosine, grades, judged in zip(yes_no_logit, near, batch.grades, ~new & batch.mask, strict=True):
        shares = grades[judged] / grades[judged].sum()
        alone["yes_no_logit"].append(0.7 * -(shares * said[judged].log_softmax(-1)).sum())
        alone["listwise"].append(1.2 * -(shares * (said + 5.0 * cosine)[judged].log_softmax(-1)).sum())
    for term, values in alone.items():
        assert float(terms[term]) == pytest.approx(float(torch.stack(values).mean()), abs=1e-4), term
    assert float(terms["agreement"]) == pytest.approx(0.5 * divergence(yes_no_logit, near, batch.mask), abs=1e-4)
    right, wrong = batch.eligible & (batch.grades > 0), batch.eligible & (batch.grades == 0)
    wanted = (torch.nn.functional.softplus(-yes_no_logit[right]).mean() + yes_no_logit[wrong].exp().log1p().mean()) / 2
    assert float(terms["pointwise"]) == pytest.approx(0.3 * float(wanted), abs=1e-4)


def test_every_term_of_the_loss(make_module):
    """A term is left out although it has a weight, or computed although it has none."""
    module = make_module(similarity=5.0, yes_no_logit=1.0, agreement=0.5, unlabelled=1)
    terms = module.losses(np.random.default_rng(0))
    assert set(terms) == {"pointwise", "yes_no_logit", "listwise", "agreement", "contrastive"}
    assert float((terms["listwise"] - terms["yes_no_logit"]).detach().abs()) > 1e-6
    assert score_weights(module.backbone).similarity == 5.0
    module = make_module(pointwise=0.0, contrastive=0.0)
    assert set(module.losses(np.random.default_rng(0))) == {"listwise"}


def test_preference_training_moves_the_answers_apart(
    make_module, backbone, prompt, judgements, query_ids, document_ids
):
    """DPO leaves the reference, or drifts with it; at its start the loss is log 2, whatever the model says."""
    module = make_module(contrastive=0.0)
    after = PreferenceModule(
        backbone,
        prompt,
        judgements,
        query_ids,
        document_ids,
        (module.negatives, module.unlabelled),
        dataclasses.replace(PARAMS, dpo_steps=120, contrastive=0.0),
        seed=0,
    )
    frozen = {name: value.clone() for name, value in after.reference.state_dict().items()}
    first = after.losses(np.random.default_rng(5))
    assert float(first["dpo"].detach()) == pytest.approx(np.log(2), abs=1e-5)
    fit(after, "dpo")
    losses = [float(after.losses(np.random.default_rng(draw))["dpo"].detach()) for draw in range(10)]
    assert np.mean(losses) < 0.6, "of several batches, as one of them is above it on some processors"
    assert all(torch.equal(frozen[name], value) for name, value in after.reference.state_dict().items())
