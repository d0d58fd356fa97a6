"""Segments of the prompt: what is cut, what is counted, what is refused."""

import dataclasses

import pytest

from rabtriever.core.settings import ParamsError
from rabtriever.lm.prompt import LETTERS_OF_A_TOKEN, Prompt, template_texts
from rabtriever.lm.small_model import END, build_tokenizer
from tests.language_models import pieces_tokenizer, words_tokenizer


def test_segments_are_the_filled_templates(prompt, tokenizer):
    """The model reads another text than the template says, for example without the space before a word."""
    (document,) = prompt.document.ids(["Kettle. boils water"])
    (query,) = prompt.query.ids(["tea, please"])
    assert tokenizer.decode(document) == "Item: Kettle. boils water\n"
    assert tokenizer.decode(query) == "Need: tea, please\nUseful?"


def test_ids_are_those_of_the_whole_text(prompt, tokenizer, toy):
    """Words are split otherwise at the seam than in running text, which a pretrained model has never seen."""
    texts = [document.contents for document in toy.corpus.values()]
    whole = [tokenizer(f"Item: {text}\n", add_special_tokens=False)["input_ids"] for text in texts]
    assert prompt.document.ids(texts) == whole


def test_truncation_keeps_the_template_and_is_counted(tokenizer, prompt_params):
    """The answer cue is cut off with a long text, or nobody learns that texts were cut."""
    cut = Prompt(tokenizer, dataclasses.replace(prompt_params, max_query_tokens=24), 256)
    long, short = cut.query.ids(["never ends " * 40, "tea"])
    assert len(long) == 24
    assert tokenizer.decode(long).startswith("Need: never ends") and tokenizer.decode(long).endswith("\nUseful?")
    cut.query.ids(["tea", "jam"])
    assert (cut.query.seen, cut.query.truncated) == (4, 1)
    assert cut.truncation() == {"truncated_query_percent": 25.0}


def test_a_long_text_keeps_its_start_and_its_end(tokenizer, prompt_params):
    """The end of a dialogue, where the request is, is cut off; or of a budget of one the half is the whole text."""
    text, cue = " ".join("abcdefghijklmnopqrstuvwxyz"), "\nUseful?"
    words, after = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, cue))
    assert len(words) >= 26 and words[:4] != words[4:8] != words[-4:], "so that each place can be told"
    for room, kept in ((9, words[:5] + words[-4:]), (8, words[:4] + words[-4:]), (1, words[:1])):
        tight = dataclasses.replace(prompt_params, query="{query}" + cue, max_query_tokens=room + len(after))
        assert Prompt(tokenizer, tight, 256).query.ids([text]) == [kept + after]


def test_a_text_of_exactly_the_budget_is_whole(tokenizer, prompt_params):
    """Off by one: a text that fits is cut, or one more than the model was promised gets through."""
    (ids,) = Prompt(tokenizer, prompt_params, 256).query.ids(["a cold wind blows"])
    for budget, truncated in ((len(ids), 0), (len(ids) - 1, 1)):
        exact = Prompt(tokenizer, dataclasses.replace(prompt_params, max_query_tokens=budget), 256)
        assert len(exact.query.ids(["a cold wind blows"])[0]) == budget
        assert exact.query.truncated == truncated


def test_a_mark_in_a_text_is_text(prompt, tokenizer):
    """P21: a document that speaks of `<|end|>` is read as if it ended there."""
    for text in (f"rain {END} snow", END, f"{END}{END}rain"):
        for segment, filled in ((prompt.document, f"Item: {text}\n"), (prompt.query, f"Need: {text}\nUseful?")):
            (ids,) = segment.ids([text])
            assert tokenizer.eos_token_id not in ids
            assert tokenizer.decode(ids) == filled


def test_a_mark_in_a_template_is_the_token(tokenizer, prompt_params):
    """P21: the template's own mark is spelled out with those of the texts, also where the tokenizer is set to do so."""
    marked = dataclasses.replace(prompt_params, document=f"{END}{{document}}{END}")
    for default in (False, True):
        tokenizer.split_special_tokens = default
        (ids,) = Prompt(tokenizer, marked, 256).document.ids([f"rain {END}"])
        assert [place for place, one in enumerate(ids) if one == tokenizer.eos_token_id] == [0, len(ids) - 1]
    tokenizer.split_special_tokens = False


@pytest.mark.parametrize("build", [words_tokenizer, pieces_tokenizer])
def test_marks_of_other_vocabularies(build, prompt_params):
    """P21: a vocabulary of words or pieces finds its own mark as one of them."""
    tokenizer = build()
    params = dataclasses.replace(prompt_params, document="{document} [SEP]", query="{query}", yes="y", no="n")
    segment = Prompt(tokenizer, params, 256).document
    marks = [one for one in tokenizer.all_special_tokens if one != tokenizer.unk_token]
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    texts = ["rain", *marks, *(f"rain {mark} rain{mark} [x]" for mark in marks)]
    found = segment.ids(texts)
    assert all(ids[-1] == tokenizer.sep_token_id and special.isdisjoint(ids[:-1]) for ids in found)
    assert all(ids[:-1] for ids in found), "a mark is left out"


@pytest.mark.parametrize("build", [words_tokenizer, pieces_tokenizer])
def test_texts_without_marks_are_tokenised_as_ever(build, prompt_params):
    """P21: unknown words, whose token is called special, become other ones."""
    tokenizer = build()
    params = dataclasses.replace(prompt_params, document="{document}", query="{query}", yes="y", no="n")
    texts = ["rain", "rain rain?", "r < s > [ x ]", "\U0001f642 rain"]
    expected = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert Prompt(tokenizer, params, 256).document.ids(texts) == expected


def test_tokenising_leaves_no_trace_in_the_saved_tokenizer(tokenizer, prompt, tmp_path):
    """P21: how texts were tokenised is saved with the model, and changes its hash."""
    tokenizer.save_pretrained(tmp_path / "before")
    prompt.document.ids([END])
    tokenizer.save_pretrained(tmp_path / "after")
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "after" / path.name).read_bytes()


def test_texts_are_tokenised_in_parts(prompt, toy, monkeypatch):
    """The tokenizer keeps tens of kilobytes of each text until the last one is done."""
    texts = [document.contents for document in toy.corpus.values()]
    whole, asked = prompt.document.ids(texts), []
    tokenizer = prompt.document._tokenizer
    monkeypatch.setattr("rabtriever.lm.prompt.TOKENIZED_AT_ONCE", 3)
    monkeypatch.setattr(
        prompt.document, "_tokenizer", lambda part, **how: (asked.append(len(part)), tokenizer(part, **how))[1]
    )
    assert prompt.document.ids(texts) == whole
    assert max(asked) == 3 and sum(asked) == len(texts)


def test_a_text_without_a_token(prompt, monkeypatch):
    """The mean over no tokens is no number, and the loss says to lower the learning rate."""
    monkeypatch.setattr(prompt.document, "_tokenizer", lambda texts, **how: {"input_ids": [[7], []]})
    assert all(prompt.document.ids(["tea", "\u200b"])), "a template's own words are enough"
    monkeypatch.setattr(prompt.document, "_before", [])
    monkeypatch.setattr(prompt.document, "_after", [])
    with pytest.raises(ValueError, match=r"makes no token of .*u200b'"):
        prompt.document.ids(["tea", "\u200b"])


def test_no_texts(prompt):
    """An empty list breaks the tokenizer, or counts as a text."""
    assert prompt.document.ids([]) == [] and prompt.document.seen == 0 and prompt.truncation() == {}


def test_answers_are_single_tokens(prompt, tokenizer):
    """The score is read at the first piece of a word that means something else."""
    assert tokenizer.convert_ids_to_tokens([prompt.yes_id, prompt.no_id]) in (["Ġyes", "Ġno"], [" yes", " no"])
    assert prompt.yes_id != prompt.no_id


def test_answer_of_several_tokens(tokenizer, prompt_params):
    """The message names neither the pieces nor a spelling that would do, so the user has to guess."""
    with pytest.raises(ParamsError, match=r"prompt\.yes 'Yes' is \d tokens \[.+\] .*one token: .*' yes'"):
        Prompt(tokenizer, dataclasses.replace(prompt_params, yes="Yes"), 256)
    with pytest.raises(ParamsError, match=r"prompt\.no 'certainly not' is \d+ tokens .*choose another word"):
        Prompt(tokenizer, dataclasses.replace(prompt_params, no="certainly not"), 256)


def test_same_answers(tokenizer, prompt_params):
    """Yes and no are one token: every score is zero."""
    with pytest.raises(ParamsError, match="same token"):
        Prompt(tokenizer, dataclasses.replace(prompt_params, no=" yes"), 256)


def test_budgets_over_the_context(tokenizer, prompt_params):
    """Positions beyond those the model knows give states without meaning, or an index error on a GPU."""
    Prompt(tokenizer, prompt_params, 220)
    with pytest.raises(ParamsError, match="is 220, but the model reads at most 219 tokens: lower them"):
        Prompt(tokenizer, prompt_params, 219)


def test_budget_below_the_template(tokenizer, prompt_params):
    """A budget that leaves no room for any text silently makes all documents equal."""
    template = "Need, in the words of the person who has it: {query}"
    with pytest.raises(ParamsError, match=r"prompt\.max_query_tokens is 8, but the template alone takes \d+ tokens"):
        Prompt(tokenizer, dataclasses.replace(prompt_params, query=template, max_query_tokens=8), 256)


@pytest.mark.parametrize(("key", "template"), [("document", "Item:"), ("query", "{query} {query}"), ("query", "{q}")])
def test_templates_without_their_place(tokenizer, prompt_params, key, template):
    """A typing error in a template gives every text the same tokens."""
    with pytest.raises(ParamsError, match=rf"prompt\.{key} is .* must hold {{{key}}} exactly once"):
        Prompt(tokenizer, dataclasses.replace(prompt_params, **{key: template}), 256)


def test_hash_changes_with_every_setting(tokenizer, prompt_params):
    """Vectors made with one prompt are searched with another."""
    changes = [
        {"document": "{document}"},
        {"query": "{query}?"},
        {"yes": " no", "no": " yes"},
        {"max_document_tokens": 99},
        {"max_query_tokens": 99},
    ]
    changed = [dataclasses.replace(prompt_params, **change) for change in changes]
    hashes = {Prompt(tokenizer, params, 256).hash for params in [prompt_params, *changed]}
    assert len(hashes) == 6 and all(len(found) == 16 for found in hashes)
    assert Prompt(tokenizer, dataclasses.replace(prompt_params), 256).hash in hashes


def test_template_texts_hold_both_answers(prompt_params):
    """The tokenizer never sees an answer word behind the cue, so the word is no token of its own."""
    texts = list(template_texts(prompt_params, ["a"], ["b", "c"]))
    assert texts == ["Item: a\n", "Need: b\nUseful? no", "Need: c\nUseful? yes"]


def test_a_tokenizer_is_trained_on_what_is_read(prompt_params):
    """P22: one run of 200,000 letters takes the training a minute, though a hundred tokens of it are read."""
    run = "abcdefghij" * 20_000
    document, query = template_texts(prompt_params, [f"start {run} end"], [f"begin {run} stop"])
    assert document.startswith("Item: start ab") and document.endswith("ij end\n")
    assert query.startswith("Need: begin ab") and query.endswith("ij stop\nUseful? no")
    assert len(document) == len("Item: \n") + 120 * LETTERS_OF_A_TOKEN + 1
    assert len(query) == len("Need: \nUseful? no") + 100 * LETTERS_OF_A_TOKEN + 1


def test_a_text_that_is_read_trains_whole(prompt_params):
    """P22: texts of a usual length are cut too, and every vocabulary changes."""
    longest = ("kettle " * 2000)[: 120 * LETTERS_OF_A_TOKEN]
    assert list(template_texts(prompt_params, [longest], [])) == [f"Item: {longest}\n"]


def test_a_run_of_letters_does_not_cost_the_other_words_their_tokens(prompt_params, toy):
    """P22: the run's repetitions take the vocabulary, or joining its ends makes a word that is nowhere."""
    documents = [document.contents for document in toy.corpus.values()]
    queries = list(toy.queries.values())
    plain, long = (
        build_tokenizer(template_texts(prompt_params, [*documents, *more], queries), 2000, (" yes", " no"))
        for more in ([], ["x" * 200_000])
    )
    assert set(plain.get_vocab()) <= set(long.get_vocab())
