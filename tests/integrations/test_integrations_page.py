"""The examples of docs/guides/integrations.md run as they stand, over a small retriever."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from rabtriever import api
from rabtriever.search.retriever import Retriever
from tests.closure import ROOT
from tests.docs.pages import Block, blocks

EXAMPLES = [one for one in blocks(ROOT / "docs/guides/integrations.md") if one.kind == "python"]
TASK = 'mteb.get_task("SciFact")'


def framework(block: Block) -> str:
    return block.text.partition("rabtriever.integrations.")[2].split()[0]


def test_every_framework_has_an_example():
    """A reader has to guess how a class is called."""
    assert [framework(block) for block in EXAMPLES] == ["langchain", "llamaindex", "haystack", "mteb"]


@pytest.mark.parametrize("block", EXAMPLES, ids=framework)
def test_an_example_runs(
    block: Block, folder: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The first lines that somebody copies fail."""
    pytest.importorskip(
        {"langchain": "langchain_core", "llamaindex": "llama_index.core"}.get(name := framework(block), name)
    )
    monkeypatch.setattr(api.Retriever, "load", classmethod(lambda cls, name: Retriever.load(folder)))
    names: dict[str, Any] = {}
    if name == "mteb":
        from tests.integrations.test_mteb import ToyTools

        monkeypatch.setattr(importlib.import_module("mteb"), "get_task", lambda name: ToyTools(toy))
        assert TASK in block.text
    exec(compile(block.text, block.where, "exec"), names)
    printed = capsys.readouterr().out
    assert any(doc_id in printed for doc_id in toy.corpus) if name != "mteb" else 0 < float(printed.split()[-1]) < 1
