"""Training a model that is stored in bfloat16: in float32 what is trained, bfloat16 again what is saved."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from rabtriever.lm.adapters import add_lora, tuning
from rabtriever.lm.answer import yes_no_logit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.padding import pad
from rabtriever.models.reranker import Reranker
from rabtriever.training import trainer
from rabtriever.training.contrastive import ContrastiveModule
from rabtriever.training.teacher import TeacherModule
from rabtriever.training.trainer import fit
from tests.training.test_contrastive import PARAMS as CONTRASTIVE
from tests.training.test_teacher import PARAMS as TEACHER


@pytest.fixture
def folder(make_backbone, tmp_path):
    """A folder with a model in bfloat16."""
    backbone = make_backbone()
    backbone.model.to(torch.bfloat16)
    backbone.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def make_module(prompt, judgements, query_ids, document_ids):
    """A module of a kind over a backbone, with some settings changed."""

    def make(kind: type, backbone: Backbone, **changes):
        given = (judgements, query_ids, document_ids)
        if kind is ContrastiveModule:
            return kind(backbone, *given, dataclasses.replace(CONTRASTIVE, **changes), seed=0)
        mined = np.tile(judgements.positive_for_any[:3], (len(judgements.query_ids), 1))
        settings = {"similarity": 3.0, "listwise_score": 0.5, **changes}
        return kind(backbone, prompt, *given, mined, dataclasses.replace(TEACHER, **settings), seed=0)

    return make


def dtypes(module: torch.nn.Module) -> set[torch.dtype]:
    return {parameter.dtype for parameter in module.parameters()}


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("kind", [TeacherModule, ContrastiveModule])
def test_a_model_in_bfloat16(folder, tmp_path, make_module, document_ids, kind, rank):
    """After one stage the model is float32 and takes twice the memory, or small steps are lost in its 8 bits."""
    backbone = load_backbone(folder)
    assert dtypes(backbone) == {torch.bfloat16}
    before = backbone.encode(document_ids, 8)
    settings = {"steps": 2, "lora_rank": rank, "gradient_checkpointing": True}
    with tuning(backbone, rank, gradient_checkpointing=True):
        module = make_module(kind, backbone, **settings)
        trained = [weight for weight in module.parameters() if weight.requires_grad]
        assert {weight.dtype for weight in trained} == {torch.float32}
        assert (len(trained) == 2 * 7 * 2) == bool(rank)
        terms = module.losses(np.random.default_rng(0))
        assert {term.dtype for term in terms.values()} == {torch.float32}
        fit(module, "tiny")
    backbone.save(tmp_path / "trained")
    again = load_backbone(tmp_path / "trained")
    assert dtypes(backbone) == dtypes(again) == {torch.bfloat16}
    assert {buffer.dtype for buffer in again.buffers()} == {torch.float32}, "positions are no weights"
    assert all(weight.requires_grad for weight in backbone.parameters())
    states = backbone.encode(document_ids, 8)
    assert np.array_equal(again.encode(document_ids, 8), states) and np.abs(states - before).max() > 0.01


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_half_precision_is_for_training_alone(make_backbone, monkeypatch):
    """On a GPU with bfloat16 the teacher's labels, or the embeddings of a search, have three digits."""
    backbone = make_backbone()
    monkeypatch.setattr(Backbone, "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert isinstance(backbone.train()._mixed_precision(), torch.autocast)
    assert not isinstance(backbone.eval()._mixed_precision(), torch.autocast)


def test_small_steps_are_not_lost(folder):
    """An adapter of the model's own dtype stands still: its weights have 8 bits, a step changes the tenth."""
    backbone = load_backbone(folder)
    add_lora(backbone, 2)
    weight = next(p for name, p in backbone.named_parameters() if "lora_A" in name)
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1e-5
    assert weight.dtype == torch.float32 and bool((weight != before).all())


def test_states_and_scores_are_float32(folder, prompt, query_ids, document_ids):
    """A cosine in bfloat16 has three digits: with a weight of 30 that is a tenth of a nat at random."""
    backbone = load_backbone(folder)
    backbone.configure(similarity=30.0)
    with torch.no_grad():
        states = backbone.embed(*pad(document_ids))
    assert states.dtype == torch.float32
    score = yes_no_logit(states, backbone.head_weight, prompt.yes_id, prompt.no_id)
    exact = yes_no_logit(states.double(), backbone.head_weight, prompt.yes_id, prompt.no_id)
    assert score.dtype == torch.float32 and torch.allclose(score.double(), exact, atol=1e-5)
    pairs = np.array([[0, 0], [1, 1], [0, 2]])
    for part in Reranker(backbone, prompt, backbone).score_pairs(query_ids, document_ids, pairs, 2):
        assert part.scores.dtype == part.states.dtype == np.float32


def test_float32_weights_are_not_touched(make_backbone):
    """The shipped settings give other bits than before there was any other dtype."""
    backbone, expected = make_backbone(), make_backbone()
    pointers = [weight.data_ptr() for weight in backbone.parameters()]
    with tuning(backbone, 0):
        assert [weight.data_ptr() for weight in backbone.parameters()] == pointers
    pairs = zip(backbone.parameters(), expected.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("kind", [TeacherModule, ContrastiveModule])
def test_a_checkpoint_holds_no_frozen_weights(make_backbone, make_module, document_ids, monkeypatch, tmp_path, kind):
    """Every half minute the whole language model is written beside its adapters; or a resumed run lacks it."""
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)

    def train(kill_at: int | None = None) -> np.ndarray:
        torch.manual_seed(0)
        backbone = make_backbone()
        with tuning(backbone, 4):
            module = make_module(kind, backbone, steps=5, lora_rank=4)
            plain = module.losses
            module.losses = lambda rng: plain(rng) if module.global_step != kill_at else 1 / 0
            fit(module, "tiny", tmp_path / "scratch")
        return backbone.encode(document_ids, 8)

    expected = train()
    shutil.rmtree(tmp_path / "scratch")
    with pytest.raises(ZeroDivisionError):
        train(kill_at=3)
    saved = torch.load(tmp_path / "scratch/step.ckpt", weights_only=False)["state_dict"]
    assert len(saved) == 2 * 7 * 2 and all("lora" in name for name in saved)
    assert np.array_equal(train(), expected)
