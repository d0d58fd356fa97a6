"""Contrastive training: which documents push a query away, and what a resume does to mined negatives."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Document
from rabtriever.data.judgements import Judgements
from rabtriever.lm.padding import pad
from rabtriever.training import contrastive
from rabtriever.training.contrastive import BiencoderParams, ContrastiveModule, mine_with_cosine, no_negatives
from rabtriever.training.trainer import fit

PARAMS = BiencoderParams(
    steps=6,
    batch_size=6,
    hard_negatives=0,
    refresh_every=2,
    temperature=0.1,
    language_model=0.0,
    lora_rank=0,
    gradient_checkpointing=False,
    optimizer="adamw",
    learning_rate=3e-3,
)


@pytest.fixture
def make_module(make_backbone, judgements, query_ids, document_ids):
    """A module with a fresh backbone on the toy data, with some settings changed."""

    def make(**changes) -> ContrastiveModule:
        params = dataclasses.replace(PARAMS, **changes)
        return ContrastiveModule(make_backbone(), judgements, query_ids, document_ids, params, seed=0)

    return make


@pytest.fixture
def minings(monkeypatch) -> list[int]:
    """One entry for each mining done."""
    done: list[int] = []
    original = contrastive.mine_with_cosine
    monkeypatch.setattr(
        contrastive, "mine_with_cosine", lambda *args, **how: (done.append(1), original(*args, **how))[1]
    )
    return done


def test_known_positives_are_no_negatives(judgements):
    """Another positive of the same query in the batch, or a document that nobody judged, is pushed away from it."""
    queries = np.array([judgements.query_ids.index(name) for name in ("sponge-0", "ladder-1")])
    column = {judgements.doc_ids.index(name): n for n, name in enumerate(("torch", "ladder", "sponge", "bucket"))}
    mask = no_negatives(judgements, queries, column)
    assert mask.tolist() == [[True, False, True, True], [False, True, False, True]]


def test_what_one_query_rejects_is_no_negative_of_others(judgements):
    """A document without a positive, named wrong for one query, would be taught to be wrong for all."""
    new = judgements.doc_ids.index("bucket")
    rejected = [frozenset([new]) if query == 1 else frozenset() for query in range(len(judgements.query_ids))]
    known = dataclasses.replace(judgements, rejected=rejected)
    assert no_negatives(known, np.arange(3), {new: 0}).flatten().tolist() == [True, False, True]


def test_copies_and_the_query_itself_are_no_negatives(toy):
    """P06, P07: a document in the batch pushes a query away that is right for it under another id, or is the query."""
    corpus = {**toy.corpus, "twin": toy.corpus["sponge"]._replace(doc_id="twin"), "own": toy.corpus["ladder"]}
    qrels = {"own": {"twin": 1}, "other": {"ladder": 1}, "third": {"sponge": 1}}
    found = Judgements.build(corpus, qrels, {"own": "a need", "other": "another", "third": "a third"})
    column = {found.doc_ids.index(name): n for n, name in enumerate(("sponge", "twin", "own", "ladder"))}
    queries = np.array([found.query_ids.index(name) for name in ("own", "other", "third")])
    assert no_negatives(found, queries, column).tolist() == [
        [True, True, True, True],
        [False, False, True, True],
        [True, True, False, False],
    ]


def test_mining_is_the_cosine_of_states(make_backbone, judgements, query_ids, document_ids, monkeypatch):
    """Negatives are mined by another similarity than is trained, or contain positives or unjudged documents."""
    monkeypatch.setattr(contrastive, "MINING_DEPTH", 3)
    model = make_backbone()
    found = mine_with_cosine(model, judgements, query_ids, document_ids, batch_size=5)
    queries, documents = (torch.from_numpy(model.encode(ids, 1)) for ids in (query_ids, document_ids))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], documents[None], dim=-1).numpy()
    for query, rows in enumerate(found):
        wrong = [row for row in judgements.positive_for_any if row not in judgements.grades[query]]
        expected = sorted(wrong, key=lambda row: -cosine[query, row])[:3]
        assert rows.tolist() == expected


def test_unit():
    """A zero vector turns the similarities of everything into NaN."""
    assert unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]


def test_hard_negatives_are_in_the_batch(make_module):
    """Mined negatives are drawn and then not compared with (a batch of 2 has 2 documents; more give a larger loss)."""
    without = make_module(batch_size=2).losses(np.random.default_rng(0))["contrastive"]
    with_mined = make_module(batch_size=2, hard_negatives=2).losses(np.random.default_rng(0))["contrastive"]
    assert float(with_mined.detach()) > float(without.detach()) + 0.1


def test_no_language_modelling_where_the_next_token_is_seen(make_backbone, judgements, query_ids, document_ids):
    """The next-token loss falls to nothing because the answer is in the input, and the layers learn to copy it."""
    backbone = make_backbone()
    backbone.configure(attention="segment")
    params = dataclasses.replace(PARAMS, language_model=2.0)
    with pytest.raises(ValueError, match=r"language_model is 2\.0, but .* a token sees the next one"):
        ContrastiveModule(backbone, judgements, query_ids, document_ids, params, seed=0)


def test_next_token_loss_is_that_of_the_language_model(make_module, query_ids, document_ids):
    """The warm-up's language term predicts the wrong position, or padding (all of a small batch is sampled)."""
    module = make_module(batch_size=3, language_model=2.0)
    terms = module.losses(np.random.default_rng(4))
    rng = np.random.default_rng(4)
    queries = module.judgements.sample_queries(3, rng)
    documents = dict.fromkeys(module.judgements.positive(int(query), rng) for query in queries)
    losses = []
    for sequences in ([query_ids[q] for q in queries], [document_ids[d] for d in documents]):
        ids, mask = pad(sequences)
        with torch.no_grad():
            labels = ids.masked_fill(mask == 0, -100)
            losses.append(float(module.backbone.model(input_ids=ids, attention_mask=mask, labels=labels).loss))
    assert float(terms["language_model"].detach()) == pytest.approx(sum(losses), rel=1e-4)


def test_a_term_of_weight_zero_is_not_computed(make_module):
    """The bi-encoder baseline pays for a language model that nobody asked for."""
    assert set(make_module().losses(np.random.default_rng(0))) == {"contrastive"}


def test_gradients_reach_the_backbone(make_module):
    """One side is encoded without gradient: half of the bi-encoder does not learn."""
    module = make_module()
    module.losses(np.random.default_rng(0))["contrastive"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.backbone.parameters())


def test_training_ranks_the_toy_positives_first(make_module, query_ids, document_ids):
    """The parts fit together but the whole does not learn (chance: 2 of 12)."""
    module = make_module(steps=60, batch_size=12)
    fit(module, "contrastive")
    similarity = unit(module.backbone.encode(query_ids, 12)) @ unit(module.backbone.encode(document_ids, 8)).T
    grades = module.judgements.grades
    assert sum(int(row) in grades[query] for query, row in enumerate(similarity.argmax(1))) >= 10


def test_negatives_are_mined_anew_on_schedule(make_module, minings):
    """Negatives of the first step are kept to the end, when they are no longer hard; or mining runs at every step."""
    fit(make_module(steps=5, hard_negatives=1), "contrastive")
    assert len(minings) == 3, "at steps 0, 2 and 4"
    minings.clear()
    fit(make_module(steps=5), "contrastive")
    assert minings == [], "without hard negatives there is nothing to mine"


@pytest.mark.parametrize("kill_at", [4, 3])
def test_resume_with_mined_negatives(make_module, minings, monkeypatch, tmp_path, kill_at):
    """A run resumed at a mining, or between two, goes on with the negatives of another model than it would have had."""
    monkeypatch.setattr("rabtriever.training.trainer.CHECKPOINT_SECONDS", 0)
    expected = make_module(hard_negatives=1)
    fit(expected, "contrastive")
    killed = make_module(hard_negatives=1)
    plain = killed.losses
    killed.losses = lambda rng: plain(rng) if killed.global_step != kill_at else 1 / 0
    with pytest.raises(ZeroDivisionError):
        fit(killed, "contrastive", tmp_path / "scratch")
    minings.clear()
    resumed = make_module(hard_negatives=1)
    fit(resumed, "contrastive", tmp_path / "scratch")
    pairs = zip(resumed.backbone.parameters(), expected.backbone.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert len(minings) == 1, "the mining of step 4 alone"


def test_similarity_is_the_cosine_of_pooled_states(backbone, judgements, query_ids, document_ids):
    """Vector length decides instead of direction, or padding takes part in the state."""
    module = ContrastiveModule(backbone, judgements, query_ids, document_ids, PARAMS, seed=0)
    queries = torch.tensor([[[9.0, 9.0], [3.0, 0.0], [7.0, 7.0]]])
    documents = torch.tensor([[[5.0, 0.0], [1.0, 1.0]], [[2.0, 2.0], [0.0, 700.0]]])
    masks = torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0], [1, 1]])
    found = module.similarity(queries, masks[0], documents, masks[1])
    assert torch.allclose(found, torch.tensor([[1.0, 0.0]]), atol=1e-6)


def test_the_loss_is_that_of_the_cosines(make_module, judgements, query_ids, document_ids):
    """The temperature does nothing, or what is trained is not what ranks (cross-entropy written out)."""
    module, rng = make_module(temperature=0.2), np.random.default_rng(3)
    with torch.no_grad():
        found = module.losses(np.random.default_rng(3))["contrastive"]
    queries = judgements.sample_queries(PARAMS.batch_size, rng)
    targets = [judgements.positive(int(query), rng) for query in queries]
    asked, read = (unit(module.backbone.encode(ids, 12)) for ids in (query_ids, document_ids))
    losses = []
    for query, target in zip(queries, targets, strict=True):
        wrong = [row for row in dict.fromkeys(targets) if row not in judgements.grades[query]]
        logits = asked[query] @ read[[target, *wrong]].T / 0.2
        losses.append(np.log(np.exp(logits).sum()) - logits[0])
    assert float(found) == pytest.approx(np.mean(losses), abs=1e-5)


def test_each_of_many_queries_is_mined_with_its_own_judgements():
    """From the 513th query on, what is right for a query is mined as its hardest negative."""
    corpus = {name: Document(name, "", name) for name in "abc"}
    qrels = {f"{number:03}": {"abc"[number % 3]: 1} for number in range(600)}
    known = Judgements.build(corpus, qrels, {query_id: f"need {query_id}" for query_id in qrels})
    backbone = SimpleNamespace(encode=lambda vectors, *how: np.array(vectors))  # what stands for token ids are vectors
    right = np.arange(600) % 3
    queries = np.eye(3)[right] + 0.5 * np.eye(3)[(right + 1) % 3]
    found = mine_with_cosine(backbone, known, queries, np.eye(3))
    assert found.shape == (600, contrastive.MINING_DEPTH) and (found[:, 2:] == -1).all()
    assert found[:, :2].tolist() == np.stack([(right + 1) % 3, (right + 2) % 3], axis=1).tolist()
