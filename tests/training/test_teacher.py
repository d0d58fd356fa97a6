"""The teacher: reading a document once must change nothing, and its training must reach what it should."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import last_states, pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models import reranker
from rabtriever.models.document_terms import score_weights
from rabtriever.models.reranker import Reranker, ask, read_documents
from rabtriever.training.losses import listwise_loss, reranker_loss
from rabtriever.training.preference import PreferenceModule
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import fit
from tests.language_models import small_bert, small_llama

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


@pytest.fixture(params=["qwen2", "llama", "bert"])
def any_backbone(request, backbone, tokenizer) -> Backbone:
    """The built-in backbone, and two that a user may bring."""
    if request.param == "qwen2":
        return backbone
    return Backbone({"llama": small_llama, "bert": small_bert}[request.param](len(tokenizer)), tokenizer).eval()


def all_pairs(queries, documents) -> np.ndarray:
    """(Q * D, 2) query and document indices, shuffled."""
    pairs = [(query, document) for query in range(len(queries)) for document in range(len(documents))]
    return np.random.default_rng(0).permutation(np.array(pairs))


def test_cached_equals_concatenated(any_backbone, query_ids, document_ids):
    """A query read after cached keys sees padding, or stands at other positions than in one text."""
    pairs = all_pairs(query_ids, document_ids)
    expected = any_backbone.encode([document_ids[d] + query_ids[q] for q, d in pairs], 16)
    with torch.no_grad():
        prefix = read_documents(any_backbone, *pad(document_ids))
        asked = ask(any_backbone, prefix, torch.from_numpy(pairs[:, 1]), *pad([query_ids[q] for q in pairs[:, 0]]))
    np.testing.assert_allclose(asked.numpy(), expected, atol=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE


def test_cached_equals_the_two_segments_at_once(any_backbone, query_ids, document_ids):
    """Attention within segments: a document read before sees the query, or a query not the whole of itself."""
    any_backbone.configure(attention="segment")
    pairs = all_pairs(query_ids, document_ids)
    ids, mask = pad([document_ids[d] + query_ids[q] for q, d in pairs])
    lengths = torch.tensor([len(document_ids[d]) for _, d in pairs])
    with torch.no_grad():
        expected = last_states(any_backbone.hidden_states(ids, mask, lengths), mask)
        prefix = read_documents(any_backbone, *pad(document_ids))
        asked = ask(any_backbone, prefix, torch.from_numpy(pairs[:, 1]), *pad([query_ids[q] for q in pairs[:, 0]]))
    np.testing.assert_allclose(asked.numpy(), expected.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(prefix.states.numpy(), any_backbone.encode(document_ids, 3), atol=TOLERANCE)


def test_asking_does_not_change_the_cache(backbone, query_ids, document_ids):
    """The second query read after a document sees the first one too."""
    with torch.no_grad():
        prefix = read_documents(backbone, *pad(document_ids[:2]))
        rows = torch.tensor([0, 1])
        first = ask(backbone, prefix, rows, *pad(query_ids[:2]))
        ask(backbone, prefix, rows, *pad(query_ids[2:4]))
        assert torch.equal(ask(backbone, prefix, rows, *pad(query_ids[:2])), first)


def test_the_document_state_is_that_of_the_document_alone(any_backbone, query_ids, document_ids):
    """What the index stores is not the state that the teacher passes through: the student learns from other input."""
    alone = any_backbone.encode(document_ids, 3)
    with torch.no_grad():
        states = read_documents(any_backbone, *pad(document_ids)).states.numpy()
        within = [
            any_backbone.hidden_states(*pad([ids + query_ids[number]]))[0, len(ids) - 1].numpy()
            for number, ids in enumerate(document_ids)
        ]
    np.testing.assert_allclose(states, alone, atol=TOLERANCE)
    np.testing.assert_allclose(np.stack(within), alone, atol=TOLERANCE)


def direct_scores(model: Backbone, prompt, queries, documents) -> np.ndarray:
    """(Q, D) log p(yes) - log p(no) by plain transformers, one pair after another."""
    scores = np.empty((len(queries), len(documents)))
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            with torch.no_grad():
                log_p = model.model(input_ids=torch.tensor([document + query])).logits[0, -1].log_softmax(-1)
            scores[q, d] = log_p[prompt.yes_id] - log_p[prompt.no_id]
    return scores


def all_scores(model: Backbone, prompt, queries, documents) -> np.ndarray:
    """(Q, D) scores of all pairs by annotation."""
    pairs = all_pairs(queries, documents)
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    for part in Reranker(model, prompt).annotate(queries, documents, pairs, 32):
        scores[tuple(pairs[part.pairs].T)] = part.scores
    return scores


@pytest.mark.parametrize("group", [3, 32])
def test_annotation_covers_every_pair_once(backbone, prompt, query_ids, document_ids, monkeypatch, group):
    """Pairs are lost or mixed up between groups of documents; or the batch size changes what the teacher says."""
    monkeypatch.setattr(reranker, "PREFIX_BATCH", group)
    teacher = Reranker(backbone, prompt)
    queries, documents = query_ids[:5], document_ids[:7]
    pairs = all_pairs(queries, documents)
    expected = direct_scores(backbone, prompt, queries, documents)[pairs[:, 0], pairs[:, 1]]
    states = backbone.encode([documents[d] + queries[q] for q, d in pairs], 8)
    for batch_size in (1, 4, 1000):
        parts = list(teacher.annotate(queries, documents, pairs, batch_size))
        order = np.concatenate([part.pairs for part in parts])
        assert sorted(order.tolist()) == list(range(len(pairs)))
        assert all(len(part.pairs) <= batch_size for part in parts)
        np.testing.assert_allclose(np.concatenate([part.scores for part in parts]), expected[order], atol=1e-4)
        np.testing.assert_allclose(np.concatenate([part.states for part in parts]), states[order], atol=TOLERANCE)


def test_annotation_of_a_few_pairs(backbone, prompt, query_ids, document_ids):
    """Documents without a pair are read, a repeated pair is answered once, or no pair at all is an error."""
    reranker = Reranker(backbone, prompt)
    pairs = np.array([[4, 6], [0, 2], [4, 6], [1, 2]])
    expected = direct_scores(backbone, prompt, query_ids, document_ids)[pairs[:, 0], pairs[:, 1]]
    found = np.full(4, np.nan)
    for part in reranker.annotate(query_ids, document_ids, pairs, 3):
        found[part.pairs] = part.scores
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert list(reranker.annotate(query_ids, document_ids, np.zeros((0, 2), int), 3)) == []


def test_a_score_is_the_head_on_a_state(backbone, prompt, query_ids, document_ids):
    """The score and the state that the student learns to predict come from different places."""
    pairs = np.array([[0, 0], [1, 3]])
    (part,) = Reranker(backbone, prompt).annotate(query_ids, document_ids, pairs, 8)
    head = backbone.head_weight.detach().numpy()
    np.testing.assert_allclose(part.states @ (head[prompt.yes_id] - head[prompt.no_id]), part.scores, atol=1e-5)


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


def test_gradient_through_the_cache_is_that_of_the_concatenation(backbone, query_ids, document_ids):
    """Keys and values are detached in the cache: the gradient lacks the document's share."""
    for cached in (True, False):
        backbone.zero_grad()
        if cached:
            prefix = read_documents(backbone, *pad(document_ids[:2]))
            states = ask(backbone, prefix, torch.tensor([0, 1]), *pad(query_ids[:2]))
        else:
            states = backbone.embed(*pad([d + q for d, q in zip(document_ids[:2], query_ids[:2], strict=True)]))
        states[:, 0].sum().backward()
        found = torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()])
        if cached:
            first = found.clone()
    assert torch.allclose(first, found, atol=1e-4 * float(found.abs().max()))


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


def test_score_is_evidence_and_similarity(any_backbone, prompt_params, toy):
    """The similarity is added in training and forgotten when pairs are annotated, or taken of other states."""
    prompt = Prompt(any_backbone.tokenizer, prompt_params, any_backbone.context)
    queries = prompt.query.ids(list(toy.queries.values())[:3])
    documents = prompt.document.ids([document.contents for document in toy.corpus.values()])
    pairs = np.array([(q, d) for q in range(3) for d in (0, 4, 7)])
    scores = {}
    for pooling in ("last", "mean"):
        for weight in (0.0, 7.0):
            any_backbone.configure(similarity=weight, pooling=pooling)
            found = np.empty(len(pairs), dtype=np.float32)
            for part in Reranker(any_backbone, prompt).annotate(queries, documents, pairs, 4):
                found[part.pairs] = part.scores
            scores[weight] = found
        asked, read = any_backbone.encode(queries, 3), any_backbone.encode(documents, 8)
        cosine = torch.cosine_similarity(torch.from_numpy(asked[pairs[:, 0]]), torch.from_numpy(read[pairs[:, 1]]))
        assert np.allclose(scores[7.0] - scores[0.0], 7.0 * cosine.numpy(), atol=1e-3)


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
