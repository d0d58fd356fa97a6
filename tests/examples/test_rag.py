"""The example of retrieval for a chat model: what counts as a right answer, without the model itself."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from rabtriever import Hit
from rabtriever.data.beir_io import Dataset
from rabtriever.data.preparation import write_dataset
from tests.closure import ROOT


@pytest.fixture(scope="module")
def rag() -> dict[str, Any]:
    """The names of the example."""
    return runpy.run_path(str(ROOT / "examples/rag/answer.py"))


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Use the plastic card: it lifts.", ["long"]),
        ("A CARD, or a towel", ["card", "towel"]),
        ("a towel rather than a card", ["towel", "card"]),
        ("cardboard", []),
    ],
)
def test_the_first_thing_that_is_named_counts(rag: dict[str, Any], answer: str, wanted: list[str]):
    """A part of a longer name counts for another document, or a thing named last counts as the answer."""
    titles = {"card": "Card", "long": "Plastic card", "towel": "Towel"}
    assert rag["named"](answer, titles) == wanted


class Found:
    """A retriever that finds the same for every query."""

    def search(self, query: str, k: int) -> list[Hit]:
        """The first k documents."""
        return [Hit("sponge", 2.0, "Sponge", "soaks"), Hit("broom", 1.0, "Broom", "sweeps")][:k]


class Echo:
    """A model that names the first thing of its message, and nothing where there is none."""

    def answer(self, message: str) -> str:
        """A name."""
        return "Broom" if "- Sponge: soaks\n- Broom: sweeps" in message else "I do not know."


def test_an_answer_is_measured_with_and_without_documents(rag: dict[str, Any], toy: Any, tmp_path: Path):
    """The figures of the page are of another split, or take the retriever's first document for the model's answer."""
    corpus = {name: one._replace(title=name.capitalize()) for name, one in toy.corpus.items()}
    qrels = {"test": {"sponge-0": {"sponge": 1}, "broom-0": {"broom": 2}}}
    write_dataset(Dataset(corpus, toy.queries, {"train": toy.qrels, **qrels}), tmp_path)
    found = rag["measure"](Found(), Echo(), tmp_path, "test", 9, 2)
    assert found["right_percent"] == {"alone": 0.0, "with retrieval": 50.0, "first document": 50.0}
    assert (found["queries"], found["split"], found["documents_read"]) == (2, "test", 2)
    assert {one["query"] for one in found["examples"]} == {toy.queries["sponge-0"], toy.queries["broom-0"]}
