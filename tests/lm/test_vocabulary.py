"""Tokens that a model has no row for, and rows without a token: told when the model is opened."""

import copy
import dataclasses
import json

import pytest

from rabtriever.core.settings import ParamsError
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.lm.small_model import build_tokenizer
from rabtriever.models.reranker import check_reading
from tests.language_models import small_llama


def test_a_tokenizer_larger_than_the_embedding(tokenizer, tmp_path):
    """P25: a token without a row ends a later stage with "index out of range"."""
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    larger = copy.deepcopy(tokenizer)
    larger.add_tokens(["teapot", "jamjar", "doormat", "coathook"])
    larger.save_pretrained(tmp_path)
    last, rows = len(tokenizer) + 3, len(tokenizer)
    with pytest.raises(ValueError, match=f"ids up to {last}, but the model has {rows} rows .*at least {last + 1}"):
        load_backbone(tmp_path)


def test_an_answer_without_a_row(toy, tmp_path):
    """P25: the answer words are the last tokens, so that the head has no row for one of them."""
    texts = [document.contents for document in toy.corpus.values()]
    tokenizer = build_tokenizer(texts, 320, (" yes", " no"))
    assert tokenizer(" no", add_special_tokens=False)["input_ids"] == [len(tokenizer) - 1]
    tokenizer.save_pretrained(tmp_path)
    small_llama(len(tokenizer) - 1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="rows of embedding and head"):
        load_backbone(tmp_path)


def test_ids_with_a_gap(tokenizer, tmp_path):
    """P25: as many tokens as rows, and yet the last of them has none."""
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    word = max(state["model"]["vocab"], key=state["model"]["vocab"].get)
    state["model"]["vocab"][word] += 10
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(ValueError, match=rf"token ids up to {len(tokenizer) + 9}, but the model has {len(tokenizer)} "):
        load_backbone(tmp_path)


def test_special_tokens_without_a_row(tokenizer, prompt_params, tmp_path):
    """P25: a model is refused for a padding token that nothing uses, or a template ends in "index out of range"."""
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    larger = copy.deepcopy(tokenizer)
    larger.add_special_tokens({"pad_token": "<pad>", "sep_token": "<sep>"})
    larger.save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    texts = ["rain <sep>", "<pad>"]
    plain = Prompt(loaded.tokenizer, prompt_params, 256)
    check_reading(loaded, plain)
    assert loaded.encode(plain.document.ids(texts), 2).shape == (2, 16)
    marked = dataclasses.replace(prompt_params, document="{document}<sep>")
    with pytest.raises(ParamsError, match=f"prompt: '<sep>' is token {len(tokenizer) + 1}, but the model has .* rows"):
        check_reading(loaded, Prompt(loaded.tokenizer, marked, 256))


def test_an_embedding_larger_than_the_tokenizer(tokenizer, tmp_path):
    """P25: rows are padded to a round number, as those of Qwen2.5, and such a model is refused."""
    small_llama(len(tokenizer) + 28).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert len(load_backbone(tmp_path).head_weight) == len(tokenizer) + 28
