"""What pages tell a reader to type works, and prints what they say."""

from __future__ import annotations

import contextlib
import dataclasses
import doctest
import inspect
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import rabtriever
from tests.closure import ROOT
from tests.docs.pages import Block, blocks, pages
from tests.docs.shell import commands, fault
from tests.docs.stand_in import ANSWERS, EXPLAINED, StandIn

BLOCKS = [block for page in pages() for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.kind in ("sh", "bash", "console")]
PYTHON = sorted({block.page for block in BLOCKS if block.kind == "python"})
KINDS = {"python", "pycon", "sh", "yaml", "text", "json", "mermaid", "toml"}
RANKED = re.compile(r"^\s*\d+\.\s+(-?\d+\.\d+)\s+(\S+)\s+(.+?)\s*$", re.MULTILINE)  # a row of `rabtriever search`
CHEAP = {"rabtriever data check data/household"}  # commands that are run, each in a block of its own with its output


def _lines(block: Block) -> set[str]:
    return {" ".join(words) for words in commands(block.text)}


def where(block: Block) -> str:
    return block.where


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_blocks_have_a_language():
    """A block without a language is run by no test."""
    odd = [f"{block.where} {block.kind!r}" for block in BLOCKS if block.kind not in KINDS and block.kind[:1] != "{"]
    assert not odd


@pytest.mark.parametrize("page", PYTHON, ids=name)
def test_python_runs_and_prints_what_the_page_says(page: Path, monkeypatch: pytest.MonkeyPatch):
    """The first lines that somebody copies fail, or print something else."""
    monkeypatch.setattr(rabtriever, "Retriever", StandIn, raising=False)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.kind == "python" and block.runs:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                _run(block, names)
            if block.output is not None:
                assert printed.getvalue().strip() == block.output.strip(), block.where


def _run(block: Block, names: dict[str, Any]) -> None:
    if ">>> " not in block.text:
        exec(compile(block.text, block.where, "exec"), names)
        return
    parsed = doctest.DocTestParser().get_doctest(block.text, names, block.where, str(block.page), block.line)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    said: list[str] = []
    runner.run(parsed, out=said.append, clear_globs=False)
    names |= parsed.globs
    assert runner.summarize(verbose=False).failed == 0, "".join(said)


@pytest.mark.parametrize("block", SHELL, ids=where)
def test_commands_are_known(block: Block):
    """A page names a target, module, option or command that is gone."""
    assert not [f"{' '.join(words)}: {fault(words)}" for words in commands(block.text) if fault(words)]


@pytest.mark.parametrize("block", [block for block in SHELL if "rabtriever search" in block.text], ids=where)
def test_searches_are_answered_as_the_page_says(block: Block):
    """A page shows a ranking that nobody will see."""
    rows = [(float(score), *row) for score, *row in RANKED.findall(block.output or "")]
    queries = [words[2] for words in commands(block.text) if words[:2] == ["rabtriever", "search"]]
    for query in (query for query in queries if rows and not query.startswith("-")):
        hits = StandIn.load().search(query, len(rows))
        assert rows == [(pytest.approx(hit.score, abs=0.006), hit.doc_id, hit.title) for hit in hits], query


@pytest.mark.parametrize("block", [block for block in SHELL if CHEAP & _lines(block)], ids=where)
def test_cheap_commands_run(block: Block, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A command that parses and then fails, or prints something else, is found by the reader."""
    from rabtriever import cli

    monkeypatch.chdir(ROOT)
    for line in sorted(CHEAP & _lines(block)):
        assert cli.main(line.split()[1:]) == 0, line
        assert capsys.readouterr().out == (block.output or ""), line


def test_explained_parts_sum_to_the_score():
    """A page explains a score that is another one than the ranking beside it."""
    explained = json.loads(EXPLAINED.read_text(encoding="utf-8"))
    answers = json.loads(ANSWERS.read_text(encoding="utf-8"))
    assert explained["retriever"] == answers["retriever"], "run: python -m tests.docs.explained"
    hits = {(one["query"], hit["doc_id"]): hit["score"] for one in answers["examples"] for hit in one["hits"]}
    for pair, parts in explained["parts"].items():
        assert sum(parts.values()) == pytest.approx(hits[tuple(pair.split("\t"))], abs=0.03)


def test_the_stand_in_has_the_signatures_of_the_retriever():
    """Pages are tested against methods that the real retriever does not have."""
    from rabtriever.search.explanation import Explanation

    for method in ("load", "search", "explain"):
        here, there = (inspect.signature(getattr(one, method)).parameters for one in (StandIn, rabtriever.Retriever))
        assert list(here) == list(there)[: len(here)], method
    assert {field.name for field in dataclasses.fields(Explanation)} <= {*vars(_explained()), "query", "doc_id"}


def _explained() -> Any:
    query, doc_id = next(iter(json.loads(EXPLAINED.read_text(encoding="utf-8"))["parts"])).split("\t")
    return StandIn.load().explain(query, doc_id)
