"""Small models of other families than the one built in, as plain transformers makes them."""

from __future__ import annotations

from typing import Any


def small_llama(vocabulary: int, width: int = 16, feed_forward: int = 24) -> Any:
    """A Llama with grouped keys and an untied head, as Llama 2 and 3 have."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=feed_forward,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).eval()


def small_bert(vocabulary: int) -> Any:
    """A BERT with its masked-LM head, read causally."""
    from transformers import BertConfig, BertLMHeadModel

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        is_decoder=True,
    )
    return BertLMHeadModel(config).eval()
