"""Small models and tokenizers of other families than the one built in, as plain transformers makes them."""

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


def words_tokenizer() -> Any:
    """A vocabulary of words between blanks (WordPiece), marks among them."""
    from tokenizers import models, pre_tokenizers

    words = ("[PAD]", "[UNK]", "[SEP]", "rain", "y", "n", "[", "##S", "##E", "##P", "##]", "r", "s", "x", "<", ">")
    vocabulary = {word: number for number, word in enumerate(words)}
    model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return _fast(model, pre_tokenizers.WhitespaceSplit(), pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]")


def pieces_tokenizer() -> Any:
    """A vocabulary of pieces (Unigram, as SentencePiece has it), where marks are the likeliest ones."""
    from tokenizers import models, pre_tokenizers

    letters = [(letter, -9.0) for letter in "\u2581<>/s[]SEPrainxy?"]
    marks = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("[SEP]", 0.0)]
    model = models.Unigram([*marks, ("\u2581rain", -2.0), ("\u2581y", -2.0), ("\u2581n", -2.0), *letters], unk_id=0)
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "[SEP]"}
    return _fast(model, pre_tokenizers.Metaspace(), **named)


def _fast(model: Any, words: Any, **marks: str) -> Any:
    """A tokenizer of a vocabulary and a way to find words, with its special tokens by role."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = words
    tokenizer.add_special_tokens(list(marks.values()))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)
