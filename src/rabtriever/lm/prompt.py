"""The two prompt segments, the document first: what the language model reads, and which token it answers with.

`D(d)` and `Q(q)` are tokenised apart and concatenated, so that the state at the end of `D(d)` alone is the very state
that the teacher passes through on its way to the query (LaHoRe, arXiv 2412.16615; Rabtriever, arXiv 2604.23336).
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rabtriever.core.settings import ParamsError, bounded

TOKENIZED_AT_ONCE = 1000  # texts, whose encodings hold many times what is kept of them
LETTERS_OF_A_TOKEN = 16  # more than tokens have on average, in any script


@dataclass(frozen=True)
class PromptParams:
    """Section `prompt` of params.yaml.

    Attributes:
        document: template of the document segment; holds `{document}` once.
        query: template of the query segment; holds `{query}` once.
        yes: the answer word of a relevant document, with its leading space; one token.
        no: the answer word of a document that is not relevant; one token.
        max_document_tokens: longest document segment, template included; longer texts are cut and counted.
        max_query_tokens: the same for the query segment.
    """

    document: str
    query: str
    yes: str
    no: str
    max_document_tokens: int = bounded(ge=8)
    max_query_tokens: int = bounded(ge=8)


def check_templates(params: PromptParams) -> None:
    """Refuses templates that do not hold their text exactly once.

    Raises:
        ParamsError: a template without, or with more than one, placeholder.
    """
    for key, template in (("document", params.document), ("query", params.query)):
        if template.count("{" + key + "}") != 1:
            raise ParamsError(f"prompt.{key} is {template!r}: it must hold {{{key}}} exactly once")


class Segment:
    """One segment of the prompt: a template around a text, with a token budget.

    Attributes:
        truncated: number of texts cut so far.
        seen: number of texts tokenised so far.
    """

    def __init__(self, tokenizer: Any, template: str, placeholder: str, max_tokens: int) -> None:
        before, after = template.split("{" + placeholder + "}")
        # a space before the text belongs to its first word in byte-level BPE vocabularies
        self._glue = " " if before.endswith(" ") else ""
        self._before = _template_ids(tokenizer, before.removesuffix(self._glue))
        self._after = _template_ids(tokenizer, after)
        self._tokenizer = tokenizer
        self._marks = special_ids(tokenizer) - {tokenizer.unk_token_id}  # an unknown word is no mark
        self._budget = max_tokens - len(self._before) - len(self._after)
        if self._budget < 1:
            raise ParamsError(
                f"prompt.max_{placeholder}_tokens is {max_tokens}, but the template alone takes "
                f"{max_tokens - self._budget} tokens: raise it or shorten prompt.{placeholder}"
            )
        self.truncated = 0
        self.seen = 0

    @property
    def template(self) -> list[int]:
        """Token ids of the template around the text."""
        return self._before + self._after

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of the filled template for each text.

        A special token's mark, such as `<s>` or `[SEP]`, is ordinary text in a text; in the template it is the token.

        A text over budget loses its middle, never the template: what a request is about tends to stand at its start
        or, in a dialogue, at its end.

        Raises:
            ValueError: a text of which the tokenizer leaves nothing, in a template that adds nothing.
        """
        found: list[list[int]] = []
        for start in range(0, len(texts), TOKENIZED_AT_ONCE):
            glued = [self._glue + text for text in texts[start : start + TOKENIZED_AT_ONCE]]
            encoded = self._plain(glued)
            self.truncated += sum(len(ids) > self._budget for ids in encoded)
            found += [self._before + self._cut(list(ids)) + self._after for ids in encoded]
            if empty := [text for text, ids in zip(glued, found[start:], strict=True) if not ids]:
                raise ValueError(
                    f"the tokenizer makes no token of {empty[0]!r}: give the text words, or the prompt's template some"
                )
        self.seen += len(texts)
        return found

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, of which none is special."""
        encoded = self._split(texts)
        return [ids if self._marks.isdisjoint(ids) else self._spelled(ids) for ids in encoded]

    def _split(self, texts: list[str]) -> list[list[int]]:
        # it would warn of every long text, which is cut later
        how = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self._tokenizer(texts, **how)["input_ids"]

    def _spelled(self, ids: list[int]) -> list[int]:
        """Ids with special ones spelled out: a vocabulary of whole words or pieces finds a mark in split text too."""
        names = {mark: self._tokenizer.convert_ids_to_tokens(mark) for mark in self._marks.intersection(ids)}
        letters = {mark: itertools.chain.from_iterable(self._split(list(name))) for mark, name in names.items()}
        spelled = {mark: [part for part in parts if part not in self._marks] for mark, parts in letters.items()}
        return [part for one in ids for part in spelled.get(one, [one])]

    def _cut(self, ids: list[int]) -> list[int]:
        if len(ids) <= self._budget:
            return ids
        tail = self._budget // 2
        return ids[: self._budget - tail] + (ids[-tail:] if tail else [])


def _template_ids(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a template's own text, in which a special token's mark is that token."""
    if not text:
        return []
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"])


def special_ids(tokenizer: Any) -> set[int]:
    """Vocabulary ids of the special tokens. Of these, a text can become that of unknown words alone."""
    named = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return named.union(tokenizer.all_special_ids)


class Prompt:
    """Tokenised document and query segments, and the two answer tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        params: templates, answer words and budgets.
        context: the model's longest input in tokens; both budgets together must fit.

    Attributes:
        document: the document segment.
        query: the query segment.
        yes_id: vocabulary id of the `yes` answer.
        no_id: vocabulary id of the `no` answer.

    Raises:
        ParamsError: an answer word that is not one token, a template without its placeholder, budgets over `context`.
    """

    def __init__(self, tokenizer: Any, params: PromptParams, context: int) -> None:
        check_templates(params)
        total = params.max_document_tokens + params.max_query_tokens
        if total > context:
            raise ParamsError(
                f"prompt.max_document_tokens + prompt.max_query_tokens is {total}, but the model reads at most "
                f"{context} tokens: lower them, or build or take a backbone with a longer context"
            )
        self.params = params
        self.document = Segment(tokenizer, params.document, "document", params.max_document_tokens)
        self.query = Segment(tokenizer, params.query, "query", params.max_query_tokens)
        self.yes_id = answer_id(tokenizer, "yes", params.yes)
        self.no_id = answer_id(tokenizer, "no", params.no)
        if self.yes_id == self.no_id:
            raise ParamsError(f"prompt.yes {params.yes!r} and prompt.no {params.no!r} are the same token")

    @property
    def hash(self) -> str:
        """16 hex digits that change with any template, answer word or budget."""
        return hashlib.sha256(json.dumps(asdict(self.params), sort_keys=True).encode()).hexdigest()[:16]

    def truncation(self) -> dict[str, float]:
        """Share of the texts cut so far, in per cent, by segment; a segment that saw nothing is left out."""
        return {
            f"truncated_{name}_percent": 100.0 * segment.truncated / segment.seen
            for name, segment in (("document", self.document), ("query", self.query))
            if segment.seen
        }


def answer_id(tokenizer: Any, key: str, word: str) -> int:
    """Vocabulary id of an answer word.

    Raises:
        ParamsError: the word is not exactly one token; names the pieces and the spellings that would do.
    """
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) == 1:
        return int(ids[0])
    bare = word.strip()
    forms = dict.fromkeys((bare, bare.lower(), bare.capitalize()))
    spellings = [lead + form for form in forms for lead in ("", " ")]
    single = [s for s in spellings if len(tokenizer(s, add_special_tokens=False)["input_ids"]) == 1]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    hint = f"these spellings are one token: {single}" if single else "choose another word"
    raise ParamsError(
        f"prompt.{key} {word!r} is {len(ids)} tokens {pieces} for this tokenizer, but the answer must be one: {hint}"
    )


def template_texts(params: PromptParams, documents: Iterable[str], queries: Iterable[str]) -> Iterable[str]:
    """The filled segments with their answers, as text: what a tokenizer for this prompt is trained on.

    Of a long text, only about what will be read of it: training takes long over what is not.
    """
    for text in documents:
        yield params.document.replace("{document}", _read_of(text, params.max_document_tokens))
    for number, text in enumerate(queries):
        filled = params.query.replace("{query}", _read_of(text, params.max_query_tokens))
        yield filled + (params.yes if number % 2 else params.no)


def _read_of(text: str, tokens: int) -> str:
    """A text without its middle, where it has more letters than so many tokens."""
    letters = tokens * LETTERS_OF_A_TOKEN
    if len(text) <= letters:
        return text
    tail = letters // 2
    return f"{text[: letters - tail]} {text[-tail:]}"
