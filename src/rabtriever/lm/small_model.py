"""The small language model that is built from scratch where no pretrained one is named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rabtriever.core.settings import bounded

END = "<|end|>"


@dataclass(frozen=True)
class SmallModelParams:
    """Shape of the small Qwen2 model built from scratch (section `small_model` of params.yaml)."""

    vocabulary: int = bounded(ge=300)
    width: int = bounded(ge=8)
    layers: int = bounded(ge=1)
    heads: int = bounded(ge=1)
    feed_forward: int = bounded(ge=8)
    context: int = bounded(ge=16)


def build_tokenizer(texts: Iterable[str], vocabulary: int, answers: Sequence[str]) -> Any:
    """Trains a byte-level BPE tokenizer; every answer word is one token of it.

    Args:
        texts: training text, the filled prompts.
        vocabulary: number of tokens at the most; small corpora give fewer.
        answers: answer words with their leading space.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(answers),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    missing = [word for word in answers if len(tokenizer.encode(word).ids) != 1]
    tokenizer.add_tokens([AddedToken(word, normalized=False, single_word=False) for word in missing])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def build_small_model(params: SmallModelParams, vocabulary: int, seed: int) -> Any:
    """A randomly initialised Qwen2-shaped causal LM with tied embeddings.

    Raises:
        ValueError: a width that the heads do not divide into an even head size.
    """
    from transformers import Qwen2Config, Qwen2ForCausalLM

    if params.width % (2 * params.heads):
        raise ValueError(
            f"small_model.width {params.width} must be a multiple of twice small_model.heads ({params.heads})"
        )
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=params.width,
        intermediate_size=params.feed_forward,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.heads,
        max_position_embeddings=params.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    return Qwen2ForCausalLM(config)
