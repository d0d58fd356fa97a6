"""Late interaction: what its index scores, what it mines and trains, and its row of the table."""

import dataclasses

import numpy as np
import pytest
import torch

from rabtriever.data.beir_io import Dataset
from rabtriever.lm.padding import pad
from rabtriever.training.contrastive import ContrastiveParams
from rabtriever.training.trainer import fit
from research import late_interaction
from research.baselines import late_interaction_system
from research.late_interaction import LateInteractionModule, TokenIndex, maxsim, mine_with_maxsim

PARAMS = ContrastiveParams(
    steps=6,
    batch_size=6,
    hard_negatives=0,
    mining_depth=2,
    refresh_every=2,
    temperature=0.1,
    language_model=0.0,
    lora_rank=0,
    gradient_checkpointing=False,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.0,
)
TOLERANCE = 2e-5


@pytest.fixture
def make_module(make_backbone, judgements, query_ids, document_ids):
    """A module with a fresh backbone on the toy data, with some settings changed."""

    def make(seed=0, **changes) -> LateInteractionModule:
        params = dataclasses.replace(PARAMS, **changes)
        return LateInteractionModule(make_backbone(), judgements, query_ids, document_ids, params, seed)

    return make


@pytest.fixture
def minings(monkeypatch) -> list[int]:
    """One entry for each mining done."""
    done: list[int] = []
    original = late_interaction.mine_with_maxsim
    monkeypatch.setattr(late_interaction, "mine_with_maxsim", lambda *args: (done.append(1), original(*args))[1])
    return done


def all_scores(backbone, query_ids, document_ids) -> np.ndarray:
    """(Q, N) MaxSim per query token, both sides in one batch."""
    queries, documents = pad(query_ids), pad(document_ids)
    with torch.no_grad():
        found = maxsim(backbone.hidden_states(*queries), queries[1], backbone.hidden_states(*documents), documents[1])
    return (found / queries[1].sum(1, keepdim=True)).numpy()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_index_does_not_depend_on_batches(backbone, query_ids, document_ids, batch_size):
    """Scores come back in the order of lengths, or change with what is in the batch."""
    index = TokenIndex(backbone, document_ids, batch_size)
    found = index.scores(query_ids)
    assert found.shape == (12, 8) and found.dtype == np.float32
    np.testing.assert_allclose(found, all_scores(backbone, query_ids, document_ids), atol=TOLERANCE)
    np.testing.assert_allclose(index.scores(query_ids[4:5])[0], found[4], atol=TOLERANCE)
    assert found.min() >= -1 - TOLERANCE and found.max() <= 1 + TOLERANCE, "per query token"


def test_index_knows_its_size(backbone, document_ids):
    """The table compares bytes, and padding or a token's width is counted wrongly."""
    expected = 4 * 32 * sum(map(len, document_ids)) / 8
    assert TokenIndex(backbone, document_ids, 3).bytes_per_document == pytest.approx(expected)


def test_index_leaves_the_model_as_it_was(backbone, query_ids, document_ids):
    """Mining in the middle of training switches dropout off for good, or collects gradients."""
    backbone.train()
    TokenIndex(backbone, document_ids, 4).scores(query_ids)
    assert backbone.training and all(p.grad is None for p in backbone.parameters())


@pytest.mark.parametrize("depth", [3, 50])
def test_mining_is_by_maxsim(backbone, judgements, query_ids, document_ids, depth):
    """Negatives are mined by another similarity than is trained, or contain positives or unjudged documents."""
    found = mine_with_maxsim(backbone, judgements, query_ids, document_ids, depth)
    scores = all_scores(backbone, query_ids, document_ids)
    assert found.shape == (12, depth)
    for query, rows in enumerate(found):
        wrong = [row for row in judgements.positive_for_any if row not in judgements.grades[query]]
        expected = sorted(wrong, key=lambda row: -scores[query, row])[:depth]
        assert rows[rows >= 0].tolist() == expected


def test_loss_is_the_cross_entropy_of_maxsim(make_module):
    """Training scores otherwise than the evaluation, or another positive of a query counts as its negative."""
    module = make_module(batch_size=5)
    found = module.losses(np.random.default_rng(3))
    assert set(found) == {"contrastive"}
    rng = np.random.default_rng(3)
    queries = module.judgements.sample_queries(5, rng)
    targets = [module.judgements.positive(int(query), rng) for query in queries]
    scores = all_scores(module.backbone, module.query_ids, module.document_ids)
    losses = []
    for query, target in zip(queries, targets, strict=True):
        others = {row for row in targets if row not in module.judgements.grades[query]}
        logits = torch.from_numpy(scores[query, [target, *others]]) / PARAMS.temperature
        losses.append(float(torch.logsumexp(logits, 0) - logits[0]))
    assert float(found["contrastive"].detach()) == pytest.approx(np.mean(losses), rel=1e-4)


def test_hard_negatives_are_in_the_batch(make_module):
    """Mined negatives are drawn and then not compared with (a batch of 2 has 2 documents; more give a larger loss)."""
    without = make_module(batch_size=2).losses(np.random.default_rng(0))["contrastive"]
    with_mined = make_module(batch_size=2, hard_negatives=2).losses(np.random.default_rng(0))["contrastive"]
    assert float(with_mined.detach()) > float(without.detach()) + 0.1


def test_language_model_term(make_module):
    """A setting that late interaction shares with the bi-encoder does nothing."""
    one, two = (make_module(language_model=weight).losses(np.random.default_rng(0)) for weight in (1.0, 2.0))
    assert set(one) == {"contrastive", "language_model"}
    assert float(two["language_model"].detach()) == pytest.approx(2 * float(one["language_model"].detach()))


def test_gradients_reach_the_backbone(make_module):
    """One side is encoded without gradient, so that half of the system does not learn."""
    module = make_module()
    module.losses(np.random.default_rng(0))["contrastive"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.backbone.parameters())


def test_training_ranks_the_toy_positives_first(make_module):
    """The parts fit together but the whole does not learn (chance: 3 of 12; documents never trained on left out)."""
    module = make_module(steps=60, batch_size=12)
    fit(module, "late interaction")
    judged = module.judgements.positive_for_any
    index = TokenIndex(module.backbone, [module.document_ids[row] for row in judged], 8)
    best = judged[index.scores(module.query_ids).argmax(1)]
    assert all(int(row) in grades for row, grades in zip(best, module.judgements.grades, strict=True))


def test_same_seed_same_model(make_module):
    """Two trainings from the same data differ, or the seed does nothing."""
    vectors = []
    for seed in (0, 0, 1):
        module = make_module(seed=seed, hard_negatives=1)
        fit(module, "late interaction")
        vectors.append(torch.nn.utils.parameters_to_vector(module.backbone.parameters()))
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_negatives_are_mined_anew_on_schedule(make_module, minings):
    """Negatives of the first step are kept to the end, when they are no longer hard; or mining runs at every step."""
    fit(make_module(steps=5, hard_negatives=1), "late interaction")
    assert len(minings) == 3, "at steps 0, 2 and 4"
    minings.clear()
    fit(make_module(steps=5), "late interaction")
    assert minings == [], "without hard negatives there is nothing to mine"


def test_resume_with_mined_negatives(make_module, minings, monkeypatch, tmp_path):
    """A run resumed between two minings goes on with the negatives of another model than it would have had."""
    monkeypatch.setattr("rabtriever.training.trainer.CHECKPOINT_SECONDS", 0)
    expected, killed, resumed = (make_module(hard_negatives=1) for _ in range(3))
    fit(expected, "late interaction")
    plain = killed.losses
    killed.losses = lambda rng: plain(rng) if killed.global_step != 3 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(killed, "late interaction", tmp_path / "scratch")
    minings.clear()
    fit(resumed, "late interaction", tmp_path / "scratch")
    pairs = zip(resumed.backbone.parameters(), expected.backbone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert len(minings) == 1, "the mining of step 4 alone"


def test_row_of_the_table(backbone, prompt, toy, query_ids, document_ids, judgements):
    """The run names other documents than were scored, or its price is missing."""
    dataset = Dataset(toy.corpus, toy.queries, {"test": toy.qrels})
    queries = {query_id: toy.queries[query_id] for query_id in judgements.query_ids}
    system = late_interaction_system(dataset, queries, backbone, prompt, batch_size=3)
    scores = all_scores(backbone, query_ids, document_ids)
    for row, query_id in enumerate(queries):
        expected = dict(zip(toy.corpus, scores[row].tolist(), strict=True))
        assert system.run[query_id] == pytest.approx(expected, abs=TOLERANCE)
        assert list(system.run[query_id]) == sorted(expected, key=expected.__getitem__, reverse=True)
    assert system.bytes_per_document == TokenIndex(backbone, document_ids, 3).bytes_per_document
