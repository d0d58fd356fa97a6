"""Frameworks are optional: each is imported by its own module alone, and one that is missing is named."""

from __future__ import annotations

import ast
import importlib
import sys
import tomllib

import pytest

from rabtriever.integrations.common import contents, facts
from rabtriever.search.retriever import Hit
from tests.closure import ROOT

FRAMEWORKS = {  # module, and so extra: package that it imports
    "langchain": "langchain_core",
    "llamaindex": "llama_index",
    "haystack": "haystack",
    "mteb": "mteb",
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_missing_framework_names_its_extra(name: str, monkeypatch: pytest.MonkeyPatch):
    """A user reads of a module that was never heard of, and not what to install."""
    module = f"rabtriever.integrations.{name}"
    monkeypatch.delitem(sys.modules, module, raising=False)
    for loaded in [one for one in sys.modules if one.partition(".")[0] == FRAMEWORKS[name]]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, FRAMEWORKS[name], None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'rabtriever\[{name}\]'"):
        importlib.import_module(module)


def test_nothing_else_imports_a_framework():
    """Searching would need a framework that most users do not have."""
    for path in (ROOT / "src/rabtriever").rglob("*.py"):
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = {name for node in nodes for name in _imported(node)} & set(FRAMEWORKS.values())
        allowed = {FRAMEWORKS.get(path.stem)} if path.parent.name == "integrations" else set()
        assert names <= allowed, path


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [(node.module or "").partition(".")[0]] if isinstance(node, ast.ImportFrom) else []


def test_there_is_an_extra_for_each():
    """The message names an extra that pip does not know."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*FRAMEWORKS, "irds", "integrations"} <= set(extras)
    assert extras["integrations"] == ["rabtriever[langchain,llamaindex,haystack,mteb,irds]"]


def test_a_documents_metadata_stays_with_it():
    """A chain filters by what the framework never got; the title of a document is its own."""
    hit = Hit("d1", 1.5, "Sponge", "soaks up", {"language": "en", "title": "other"})
    assert facts(hit) == {"language": "en", "title": "Sponge", "raw_score": 1.5}
    assert contents(hit) == "Sponge. soaks up"
