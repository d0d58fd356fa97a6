"""GGUF files: the folder made of one has the weights and tokens it was written from, or an error says why."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever.lm import gguf as module
from rabtriever.lm.gguf import dequantised
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.model_source import is_hub_name, resolve_source
from rabtriever.lm.prompt import Prompt
from rabtriever.models.reranker import check_reading
from tests.language_models import small_llama

gguf = pytest.importorskip("gguf", reason="needs the package gguf (make setup EXTRAS=smollm2)")

TEXTS = ["A sponge soaks up spilled drinks", "I spilled  12 drops,  and it runs over the table"]
OF_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def in_file(name: str, weight: np.ndarray, config: Any) -> tuple[str, np.ndarray]:
    """Name and content of a Llama weight as llama.cpp writes it: rows of q and k pair up as its rope does."""
    stem = name.removesuffix(".weight")
    if stem in OTHERS:
        return f"{OTHERS[stem]}.weight", weight
    number, part = stem.removeprefix("model.layers.").split(".", 1)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(OF_LAYER[part])
    if heads:
        weight = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
    return f"blk.{number}.{OF_LAYER[part]}.weight", weight


def write_settings(writer: Any, config: Any, tokenizer: Any, splits: str) -> None:
    """The header: shape of the model, and the whole tokenizer."""
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splits)
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    kinds = [gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(tokenizer) - 1)  # the first is the end mark
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)


def write_gguf(path: Path, model: Any, tokenizer: Any, kind: str = "F32", **how: str) -> dict[str, np.ndarray]:
    """Writes a Llama, its matrices as `kind`; the weights that a reader must find, by their names in transformers.

    `how` has the `architecture` that the file names, the way it `splits` text, and a weight that it `lacks`.
    """
    writer = gguf.GGUFWriter(path, how.get("architecture", "llama"))
    write_settings(writer, model.config, tokenizer, how.get("splits", "gpt-2"))
    written = {}
    for name, weight in model.state_dict().items():
        if name == how.get("lacks"):
            continue
        key, content = in_file(name, weight.numpy(), model.config)
        as_kind = gguf.GGMLQuantizationType[kind if content.ndim == 2 else "F32"]
        blocks = gguf.quantize(content, as_kind)
        writer.add_tensor(key, blocks, raw_dtype=as_kind)
        written[name] = weight.numpy() if kind == "F32" else gguf.dequantize(blocks, as_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


@pytest.fixture
def llama(tokenizer: Any) -> Any:
    """A random Llama whose rows fill the blocks of a quantised file."""
    torch.manual_seed(0)
    return small_llama(len(tokenizer), width=32, feed_forward=64)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, where the cache is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_weights_and_tokens_come_back(home, llama, tokenizer, monkeypatch):
    """Rows of queries and keys stay in the file's order, words get other numbers, or the file runs code of its own."""
    written = write_gguf(home / "tiny.gguf", llama, tokenizer)
    monkeypatch.setattr("pickle.Unpickler", None)
    monkeypatch.setattr("torch.load", None)
    backbone = load_backbone("tiny.gguf")
    found = backbone.model.state_dict()
    assert set(found) == set(written)
    assert all(np.array_equal(found[name].numpy(), weight) for name, weight in written.items())
    assert {weight.dtype for weight in backbone.parameters()} == {torch.float32} and backbone.context == 256
    assert backbone.tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        expected = llama(input_ids=ids).logits
        assert torch.allclose(backbone.logits(backbone.hidden_states(ids, torch.ones_like(ids))), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1"])
def test_quantised_weights_are_unpacked(kind, home, llama, tokenizer):
    """Weights are read as another kind of block: numbers of a plausible size, and all wrong."""
    written = write_gguf(home / "tiny.gguf", llama, tokenizer, kind)
    found = load_backbone("tiny.gguf").model.state_dict()
    gate = "model.layers.1.mlp.gate_proj.weight"
    np.testing.assert_allclose(found[gate].numpy(), written[gate], atol=1e-7)
    size = {"F16": 0.001, "Q8_0": 0.01, "Q4_1": 0.15}[kind] * float(llama.state_dict()[gate].abs().max())
    for name, weight in llama.state_dict().items():
        assert (found[name] - weight).abs().max() <= size, name


def test_the_folder_is_an_ordinary_one(home, llama, tokenizer, prompt_params):
    """What was made of a file cannot be saved, trained or asked, because it counts as quantised."""
    write_gguf(home / "tiny.gguf", llama, tokenizer, "Q8_0")
    folder = dequantised("tiny.gguf")
    assert folder.parent == Path(".cache/gguf") and "quantization_config" not in (folder / "config.json").read_text()
    assert {path.suffix for path in folder.rglob("*.*")} <= {".json", ".safetensors", ".jinja"}
    backbone = load_backbone(folder)
    check_reading(backbone, Prompt(backbone.tokenizer, prompt_params, backbone.context))
    backbone.save(home / "again")
    for name, weight in load_backbone(home / "again").model.state_dict().items():
        assert torch.equal(weight, backbone.model.state_dict()[name])


def test_a_file_is_dequantised_once(home, llama, tokenizer, monkeypatch, capsys):
    """Every stage waits for the same work, or another file of the same name gets the weights of the first."""
    write_gguf(home / "tiny.gguf", llama, tokenizer)
    first = dequantised("tiny.gguf")
    assert f"dequantising tiny.gguf into {first}" in capsys.readouterr().out
    for name in ("copy", "other"):
        (home / name).mkdir()
    (home / "tiny.gguf").rename("copy/tiny.gguf")
    write_gguf(home / "other/tiny.gguf", llama, tokenizer, "Q8_0")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_convert", None)
        assert dequantised("copy/tiny.gguf") == first and capsys.readouterr().out == ""
        with pytest.raises(TypeError, match="NoneType"):
            dequantised("other/tiny.gguf")
    assert [path.name for path in Path(".cache/gguf").iterdir()] == [first.name], "half a folder is left"
    assert dequantised("other/tiny.gguf") != first


@pytest.mark.parametrize(
    ("splits", "tokens"), [("smollm", ["Ġ", "Ġ", "1", "2"]), ("gpt-2", ["Ġ", "Ġ", "12"])], ids=["smollm", "gpt-2"]
)
def test_text_is_split_as_the_model_was_trained(splits, tokens, home, llama, tokenizer, recwarn):
    """Numbers are cut into other tokens than the model knows, because transformers takes every file for a GPT-2."""
    write_gguf(home / "tiny.gguf", llama, _with_merge(tokenizer, "1", "2"), splits=splits)
    assert load_backbone("tiny.gguf").tokenizer.tokenize("  12") == tokens
    assert not [warning for warning in recwarn if "splits text" in str(warning.message)]


def _with_merge(tokenizer: Any, left: str, right: str) -> Any:
    """The same tokenizer with one more merge, whose token takes the place of the last."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary, row = content["model"]["vocab"], len(tokenizer) - 1
    gone = next(token for token, number in vocabulary.items() if number == row)
    del vocabulary[gone]
    vocabulary[left + right] = row
    merges = [pair for pair in content["model"]["merges"] if gone not in (*pair, "".join(pair))]
    content["model"]["merges"] = [*merges, [left, right]]
    made = Tokenizer.from_str(json.dumps(content))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=tokenizer.eos_token)


def test_an_unknown_way_of_splitting_is_told(home, llama, tokenizer):
    """Texts become other tokens than the model was trained with, and nobody learns of it."""
    write_gguf(home / "tiny.gguf", llama, tokenizer, splits="no-such-way")
    with pytest.warns(UserWarning, match=r"tiny\.gguf splits text as 'no-such-way' says, which is not known here"):
        load_backbone("tiny.gguf")


@pytest.mark.parametrize("kept", [6, 20, 900, 0.3, 0.6, -1])
def test_a_cut_off_file_is_named(kept, home, llama, tokenizer):
    """An interrupted download ends in a traceback of struct or numpy, or in weights of zeros."""
    write_gguf(home / "whole.gguf", llama, tokenizer)
    content = (home / "whole.gguf").read_bytes()
    end = int(kept * len(content)) if isinstance(kept, float) else kept
    (home / "cut.gguf").write_bytes(content[:end])
    with pytest.raises(ValueError, match=r"cut\.gguf \([\d,]+ bytes\) is broken or cut off .*expected a whole GGUF"):
        load_backbone("cut.gguf")
    assert not list(Path(".cache/gguf").glob("*"))


@pytest.mark.parametrize("place", [8, 16, 24, 40])
def test_a_broken_header_is_named(place, home, llama, tokenizer):
    """Counts and lengths of a damaged header ask for all memory, or for more entries than there are bytes."""
    write_gguf(home / "broken.gguf", llama, tokenizer)
    content = bytearray((home / "broken.gguf").read_bytes())
    content[place : place + 8] = b"\xff\xff\xff\xff\xff\xff\xff\x7f"
    (home / "broken.gguf").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.gguf .* is broken or cut off"):
        load_backbone("broken.gguf")


def test_another_kind_of_file_is_named(home):
    """What Git LFS leaves in place of a file is told to be broken, which no new copy of it mends."""
    (home / "tiny.gguf").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=r"tiny\.gguf starts with b'vers', expected b'GGUF'.*Git LFS"):
        resolve_source("tiny.gguf")
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.gguf; correct the path"):
        load_backbone("absent.gguf")


def test_an_unknown_architecture_is_named(home, llama, tokenizer):
    """The user does not learn that another file would do."""
    write_gguf(home / "tiny.gguf", llama, tokenizer, architecture="rwkv6")
    with pytest.raises(ValueError, match=r"'rwkv6', is not what transformers [\d.]+ can read .*such as llama"):
        load_backbone("tiny.gguf")


def test_a_missing_weight_is_named(home, llama, tokenizer):
    """A part of a file that was split is taken for the whole, and layers of random numbers are trained."""
    missing = "model.layers.1.mlp.up_proj.weight"
    write_gguf(home / "tiny.gguf", llama, tokenizer, lacks=missing)
    with pytest.raises(ValueError, match=rf"1 of its weights are missing .* such as {re.escape(missing)}"):
        load_backbone("tiny.gguf")
    assert not list(Path(".cache/gguf").glob("*"))


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_missing_package_is_named(package, home, llama, tokenizer, monkeypatch):
    """The run fails after its first stages, in words about a checkpoint."""
    write_gguf(home / "tiny.gguf", llama, tokenizer)
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(ModuleNotFoundError, match=rf"tiny\.gguf needs the Python package {package}.*EXTRAS=smollm2"):
        resolve_source("tiny.gguf")


def test_sources_that_are_files(home, llama, tokenizer, monkeypatch):
    """A file in a package is looked for as a folder, or a path of two parts as a name on a hub."""
    (home / "some_model").mkdir()
    (home / "some_model/__init__.py").write_text("raise ImportError('imported')")
    write_gguf(home / "some_model/tiny.gguf", llama, tokenizer)
    monkeypatch.syspath_prepend(home)
    assert Path(resolve_source("package:some_model/tiny.gguf")).samefile("some_model/tiny.gguf")
    assert resolve_source("some_model/tiny.gguf") == "some_model/tiny.gguf"
    with pytest.raises(FileNotFoundError, match=r"no file .*some_model/tyni\.gguf"):
        resolve_source("package:some_model/tyni.gguf")
    assert not is_hub_name("some_model/absent.gguf")
