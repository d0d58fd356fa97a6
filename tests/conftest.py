"""Fixtures of all layers: switches, seeds, and a two-layer causal LM with a byte-level tokenizer over a toy corpus."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HAYSTACK_TELEMETRY_ENABLED", "False")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when numpy and torch are imported

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import flows  # noqa: F401 - its switches (telemetry off) must be set before any heavy library is imported
from rabtriever.data.beir_io import Corpus, Document, Qrels, Queries

pytest_plugins = ("tests.toy", "tests.server.page_fixtures")

TOOLS = {
    "sponge": "soaks up spilled drinks",
    "kettle": "boils water for tea",
    "ladder": "reaches high shelves",
    "torch": "gives light in the dark",
    "broom": "sweeps crumbs and dust",
    "blanket": "keeps a cold person warm",
    "scissors": "cut paper and string, never wire, and hang on the hook beside the window of the workshop",
    "bucket": "carries water",
}
NEEDS = {
    "sponge": ("I spilled my coke", "juice ran over the table"),
    "kettle": ("I would like some tea", "a hot drink would be nice"),
    "ladder": ("the jar is too high up", "I cannot reach the lamp, whatever I try, although it hangs over the table"),
    "torch": ("it is dark in the cellar", "the power is out"),
    "broom": ("there are crumbs everywhere", "the floor is dusty"),
    "blanket": ("I am freezing", "grandmother shivers"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: a process that gets one at the end would leave the other idle for minutes."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("server")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """A module that stays in a temporary folder fails itself; else later tests of its process would fail for it."""
    yield
    before, after = str(item.config.invocation_params.dir), os.getcwd()
    if after != before and (nextitem is None or nextitem.path != item.path):
        os.chdir(before)
        pytest.fail(f"the test ended in {after}, expected {before}")


class Toy(NamedTuple):
    """Eight documents, of which two are no query's answer, and twelve training queries."""

    corpus: Corpus
    queries: Queries
    qrels: Qrels


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whatever ran before; torch only where a test has imported it."""
    random.seed(1)
    np.random.seed(1)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(1)


@pytest.fixture(scope="session")
def toy() -> Toy:
    """The toy corpus; half of the queries have a second, weaker positive."""
    corpus = {name: Document(name, name.capitalize(), text) for name, text in TOOLS.items()}
    queries, qrels = {}, {}
    for tool, needs in NEEDS.items():
        for number, need in enumerate(needs):
            queries[f"{tool}-{number}"] = need
            qrels[f"{tool}-{number}"] = {tool: 2}
    for tool in ("sponge", "broom", "kettle"):
        for number in (0, 1):
            qrels[f"{tool}-{number}"]["torch"] = 1
    return Toy(corpus, queries, qrels)


@pytest.fixture(scope="session")
def prompt_params() -> Any:
    """A short prompt; the longest texts of the toy corpus fit."""
    from rabtriever.lm.prompt import PromptParams

    return PromptParams(
        document="Item: {document}\n",
        query="Need: {query}\nUseful?",
        yes=" yes",
        no=" no",
        max_document_tokens=120,
        max_query_tokens=100,
    )


@pytest.fixture(scope="session")
def tokenizer(toy: Toy, prompt_params: Any) -> Any:
    """Byte-level BPE trained on the filled prompts of the toy corpus."""
    from rabtriever.lm.prompt import template_texts
    from rabtriever.lm.small_model import build_tokenizer

    texts = template_texts(prompt_params, [d.contents for d in toy.corpus.values()], toy.queries.values())
    return build_tokenizer(texts, vocabulary=400, answers=(prompt_params.yes, prompt_params.no))


@pytest.fixture(scope="session")
def make_backbone(tokenizer: Any) -> Callable[..., Any]:
    """Builds a fresh two-layer backbone of width 32; the same seed gives the same weights."""
    from rabtriever.lm.backbone import Backbone
    from rabtriever.lm.small_model import SmallModelParams, build_small_model

    def make(seed: int = 0) -> Any:
        shape = SmallModelParams(vocabulary=400, width=32, layers=2, heads=4, feed_forward=48, context=256)
        return Backbone(build_small_model(shape, len(tokenizer), seed), tokenizer).eval()

    return make


@pytest.fixture
def backbone(make_backbone: Callable[..., Any]) -> Any:
    """A fresh backbone: a test may train it."""
    return make_backbone()


@pytest.fixture
def prompt(tokenizer: Any, prompt_params: Any) -> Any:
    """A fresh prompt: its truncation counters start at zero."""
    from rabtriever.lm.prompt import Prompt

    return Prompt(tokenizer, prompt_params, context=256)


@pytest.fixture(scope="session")
def judgements(toy: Toy) -> Any:
    """The toy judgements as rows."""
    from rabtriever.data.judgements import Judgements

    return Judgements.build(toy.corpus, toy.qrels, toy.queries)


@pytest.fixture
def query_ids(prompt: Any, judgements: Any, toy: Toy) -> list[list[int]]:
    """Token ids of each query row's segment."""
    return prompt.query.ids(judgements.texts(toy.queries))


@pytest.fixture
def document_ids(prompt: Any, toy: Toy) -> list[list[int]]:
    """Token ids of each document row's segment."""
    return prompt.document.ids([document.contents for document in toy.corpus.values()])
