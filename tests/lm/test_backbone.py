"""States of the language model: what may not change them, and folders they survive in."""

import numpy as np
import pytest
import torch

from rabtriever.core.settings import ParamsError
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.padding import last_states, pad, segment_mask
from rabtriever.lm.small_model import SmallModelParams, build_small_model, build_tokenizer
from rabtriever.models.reranker import check_reading, similarity_of
from tests.language_models import small_bert, small_llama

TOLERANCE = 2e-5  # float32, states of unit variance; sums are taken in another order when shapes change


def test_states_do_not_depend_on_batch_size_or_order(backbone, document_ids):
    """Two searches for the same text give different scores, because of what was in the batch beside it."""
    alone = backbone.encode(document_ids, batch_size=1)
    assert alone.shape == (8, 32) and alone.dtype == np.float32
    for size in (3, 8, 100):
        np.testing.assert_allclose(backbone.encode(document_ids, size), alone, atol=TOLERANCE)
    order = np.random.default_rng(0).permutation(len(document_ids))
    shuffled = backbone.encode([document_ids[row] for row in order], 3)
    np.testing.assert_allclose(shuffled, alone[order], atol=TOLERANCE)
    assert np.abs(alone[0] - alone[1]).max() > 100 * TOLERANCE, "the states differ at all"


def test_states_do_not_depend_on_the_padding_side(backbone, document_ids):
    """Left padding, which generation code uses, shifts the positions or is read as text."""
    ids, mask = pad(document_ids)
    left_ids, left_mask = torch.zeros_like(ids), torch.zeros_like(mask)
    for row, sequence in enumerate(document_ids):
        left_ids[row, -len(sequence) :] = torch.tensor(sequence)
        left_mask[row, -len(sequence) :] = 1
    with torch.no_grad():
        right, left = backbone.embed(ids, mask), backbone.embed(left_ids, left_mask)
        extra = backbone.embed(torch.nn.functional.pad(ids, (0, 9), value=5), torch.nn.functional.pad(mask, (0, 9)))
    assert torch.allclose(left, right, atol=TOLERANCE)
    assert torch.allclose(extra, right, atol=TOLERANCE), "neither the pad id nor the amount of padding matters"


def test_last_states_of_both_sides():
    """The state of a padding token is taken for that of the text."""
    states = torch.arange(24.0).reshape(2, 4, 3)
    assert torch.equal(
        last_states(states, torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1]])), torch.stack([states[0, 1], states[1, 3]])
    )


def test_states_are_those_of_the_plain_model(backbone, document_ids):
    """The head is applied to states before the final norm: logits are not those that the LM was trained with."""
    ids, mask = pad(document_ids[:3])
    with torch.no_grad():
        expected = backbone.model(input_ids=ids, attention_mask=mask).logits
        assert torch.allclose(
            backbone.logits(backbone.hidden_states(ids, mask))[mask.bool()], expected[mask.bool()], atol=1e-4
        )


def test_encode_leaves_the_model_as_it_was(backbone, document_ids):
    """Mining in the middle of training switches dropout off for good, or collects gradients."""
    backbone.train()
    backbone.encode(document_ids, 4)
    assert backbone.training
    backbone.eval()
    backbone.encode(document_ids, 4)
    assert not backbone.training and all(p.grad is None for p in backbone.parameters())
    assert backbone.encode([], 4).shape == (0, 32)


def test_save_and_load(backbone, document_ids, tmp_path, toy):
    """What comes back is another model or another tokenizer than what was saved."""
    from transformers import AutoModelForCausalLM

    backbone.save(tmp_path / "model")
    loaded = load_backbone(tmp_path / "model")
    texts = [d.contents + " yes no é 🙂" for d in toy.corpus.values()]
    assert loaded.tokenizer(texts)["input_ids"] == backbone.tokenizer(texts)["input_ids"]
    assert not loaded.training and (loaded.width, loaded.context) == (32, 256)
    assert np.array_equal(loaded.encode(document_ids, 8), backbone.encode(document_ids, 8))
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), backbone.model.parameters(), strict=True))
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"config.json", "model.safetensors", "tokenizer"}


def test_saving_twice_gives_the_same_bytes(make_backbone, tmp_path):
    """Equal runs give artefacts with different hashes, so nothing downstream is ever up to date."""
    for name in ("one", "two"):
        make_backbone(seed=3).save(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) >= 3
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path


def test_tokenizer_is_a_function_of_its_texts(toy, prompt_params):
    """Two builds of the same data give different ids."""
    texts = [d.contents for d in toy.corpus.values()]
    one, two = (build_tokenizer(iter(texts), 320, (" yes", " no")) for _ in range(2))
    assert one.get_vocab() == two.get_vocab() and len(one) <= 320
    assert one.decode(one("ünïcode\n\t🙂 yes")["input_ids"]) == "ünïcode\n\t🙂 yes"


def test_width_that_the_heads_do_not_divide():
    """Rotary embeddings fail deep inside the library on an odd head size."""
    shape = SmallModelParams(vocabulary=300, width=36, layers=1, heads=4, feed_forward=8, context=16)
    with pytest.raises(ValueError, match=r"small_model\.width 36 must be a multiple of twice small_model\.heads \(4\)"):
        build_small_model(shape, 300, seed=0)


@pytest.mark.parametrize("build", [small_llama, small_bert])
def test_folders_of_plain_transformers(build, tokenizer, toy, tmp_path):
    """A model that the user brings is refused, read bidirectionally, or tokenised by another vocabulary."""
    torch.manual_seed(0)
    model = build(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    texts = [d.contents for d in toy.corpus.values()]
    assert loaded.tokenizer(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert isinstance(loaded, Backbone) and (loaded.width, loaded.context) == (16, 256)
    ids, mask = pad([[5, 6, 7, 8], [5, 6, 9, 10, 11]])
    with torch.no_grad():
        states = loaded.hidden_states(ids, mask)
        expected = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
    assert torch.allclose(states[mask.bool()], expected[mask.bool()], atol=1e-5)
    assert torch.allclose(states[0, :2], states[1, :2], atol=1e-5), "what follows does not change a state"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_keep_their_dtype(backbone, tmp_path, dtype):
    """A large model takes twice the memory in every stage after the first."""
    backbone.model.to(dtype)
    backbone.save(tmp_path)
    assert {weight.dtype for weight in load_backbone(tmp_path).parameters()} == {dtype}
    assert {weight.dtype for weight in load_backbone(tmp_path, dtype="float32").parameters()} == {torch.float32}


def encoder(name: str):
    """A sentence encoder as it is published: without a head to predict words with."""
    from transformers import BertConfig, BertForPreTraining, BertModel

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config, model = {
        "bert": (BertConfig, BertModel),
        "bert with its heads": (BertConfig, BertForPreTraining),
    }[name]
    return model(config(vocab_size=400, **shape))


@pytest.fixture
def printed(capfd):
    """What transformers has printed since last asked; its handler writes to the stream of when it was imported."""
    from transformers.utils import logging

    handler = logging.logging.StreamHandler()
    logging.add_handler(handler)
    yield lambda: "".join(capfd.readouterr())
    logging.remove_handler(handler)


@pytest.mark.parametrize("name", ["bert", "bert with its heads"])
def test_what_we_know_of_a_folder_is_not_reported(name, tokenizer, tmp_path, printed):
    """Every stage prints that the checkpoint seems corrupted, because it lacks what we never compute."""
    encoder(name).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    printed()
    load_backbone(tmp_path)
    assert printed() == ""


@pytest.mark.parametrize("change", ["lacks a layer", "lacks its head", "has another", "has other shapes"])
def test_what_we_do_not_know_is_reported(change, tokenizer, tmp_path, printed):
    """A layer of random numbers goes unnoticed until the results are bad."""
    from safetensors.torch import load_file, save_file

    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    if change == "has another":
        weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(24, 16)
    elif change == "has other shapes":
        weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 16)
    else:
        del weights["lm_head.weight" if change == "lacks its head" else "model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    printed()
    if change == "has other shapes":
        with pytest.raises(ValueError, match="weights of .*above report"):
            load_backbone(tmp_path)
    else:
        load_backbone(tmp_path)
    assert "LOAD REPORT" in printed()


def test_bert_folder_reads_causally(tokenizer, tmp_path):
    """An encoder's folder does not say is_decoder: read both ways, a document's state depends on the query."""
    torch.manual_seed(0)
    model = small_bert(len(tokenizer))
    model.config.is_decoder = False
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    with torch.no_grad():
        states = loaded.hidden_states(*pad([[5, 6, 7], [5, 6, 9]]))
    assert torch.allclose(states[0, :2], states[1, :2], atol=1e-5)


@pytest.mark.parametrize("source", ["/no/such/model", "./model", "a/b/c", "model"])
def test_missing_folder(source, tmp_path, monkeypatch):
    """A typing error in a path ends in a hub look-up and a network error."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no language model at '{source}': expected a folder with config.json"):
        load_backbone(source)


def test_folder_that_is_no_model(tmp_path):
    """An empty folder, left by an interrupted copy, is taken for a hub name."""
    with pytest.raises(FileNotFoundError, match=r"expected a folder with config\.json"):
        load_backbone(tmp_path)


def test_hub_name_without_revision():
    """A retraining silently gets other weights, because the hub's main branch moved."""
    with pytest.raises(ValueError, match=r"Qwen/Qwen2\.5-0\.5B.* backbone\.revision must be a commit"):
        load_backbone("Qwen/Qwen2.5-0.5B")


def test_attention_within_segments_is_the_encoders_own(tokenizer, tmp_path):
    """A pretrained sentence encoder is read in a way it was never trained in, which costs it what it knows."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    encoder = BertModel(BertConfig(vocab_size=len(tokenizer), **shape), add_pooling_layer=False).eval()
    encoder.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone = load_backbone(tmp_path)
    ids, mask = pad([[5, 6, 7, 8], [9, 10]])
    with torch.no_grad():
        expected = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        causal = backbone.hidden_states(ids, mask)
        backbone.configure(attention="segment")
        assert torch.allclose(backbone.hidden_states(ids, mask)[mask.bool()], expected[mask.bool()], atol=1e-5)
        assert not torch.allclose(causal[mask.bool()], expected[mask.bool()], atol=1e-2)
    backbone.save(tmp_path / "again")
    assert load_backbone(tmp_path / "again").attention == "segment"


def test_attention_within_segments_needs_a_kernel_that_masks(backbone, monkeypatch):
    """A kernel that ignores the mask would show every document the query."""
    monkeypatch.setattr(backbone.model.config, "_attn_implementation", "flash_attention_2")
    with pytest.raises(ValueError, match="needs the kernel sdpa, and the model has flash_attention_2"):
        backbone.configure(attention="segment")


def test_what_a_token_sees_of_two_segments():
    """A document's states depend on the query, so that they cannot be computed before it."""
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    found = segment_mask(mask, 4, torch.tensor([2, 1]))[:, 0].int().tolist()
    assert found[0] == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert found[1] == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]
    assert segment_mask(mask, 2).shape == (2, 1, 2, 4), "two tokens read after two cached ones"


def test_pooling_and_similarity_travel_with_the_folder(backbone, tmp_path):
    """A teacher loaded again scores by other states, or without the similarity, than it was trained with."""
    assert (backbone.pooling, similarity_of(backbone)) == ("last", 0.0)
    backbone.configure(pooling="mean", similarity=4.0)
    backbone.save(tmp_path / "model")
    again = load_backbone(tmp_path / "model")
    assert (again.pooling, similarity_of(again)) == ("mean", 4.0)
    ids = [[1, 2, 3], [4, 5]]
    ids_, mask = pad(ids)
    with torch.no_grad():
        states = again.hidden_states(ids_, mask)
    wanted = torch.stack([states[0].mean(0), states[1, :2].mean(0)])
    assert torch.allclose(torch.from_numpy(again.encode(ids, 2)), wanted, atol=1e-5)
    again.configure(pooling="last")
    assert torch.allclose(torch.from_numpy(again.encode(ids, 2)), torch.stack([states[0, 2], states[1, 1]]), atol=1e-5)


def windowed(vocabulary: int, window: int):
    """A Mistral, whose layers see the last `window` tokens alone."""
    from transformers import MistralConfig, MistralForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape["initializer_range"] = 0.5  # untrained layers hardly look around
    config = MistralConfig(vocab_size=vocabulary, num_key_value_heads=1, sliding_window=window, **shape)
    return MistralForCausalLM(config).eval()


@pytest.mark.parametrize("name", ["wide", "llama", "bert"])
def test_a_model_that_reads_as_it_must(name, prompt, tokenizer):
    """A model that works is refused."""
    makers = {"wide": lambda size: windowed(size, 4096), "llama": small_llama, "bert": small_bert}
    check_reading(Backbone(makers[name](len(tokenizer)), tokenizer), prompt)


def test_a_model_that_does_not_is_refused(prompt, tokenizer):
    """The teacher's states are wrong without a word: padding counts as distance, or positions begin elsewhere."""
    from transformers import RobertaConfig, RobertaForCausalLM

    with pytest.raises(ParamsError, match=r"mistral model, whose layers see 6 tokens,.*lower prompt\.max_document_tok"):
        check_reading(Backbone(windowed(len(tokenizer), 6), tokenizer), prompt)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    for decoder in (True, False):
        config = RobertaConfig(vocab_size=len(tokenizer), is_decoder=decoder, **shape)
        with pytest.raises(ParamsError, match="roberta model does not read a document once"):
            check_reading(Backbone(RobertaForCausalLM(config).eval(), tokenizer), prompt)
