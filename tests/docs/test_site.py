"""The site finds its pages: what it takes in from elsewhere, and how links are changed on the way."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.closure import ROOT
from tests.docs.pages import links

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def conf() -> ModuleType:
    """What Sphinx reads first."""
    spec = importlib.util.spec_from_file_location("site_conf", DOCS / "conf.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pages_taken_in_have_a_place(conf: ModuleType):
    """A page that was moved leaves an empty one on the site."""
    assert {f"site/{path.stem}" for path in (DOCS / "site").glob("*.md")} == set(conf.TAKEN_IN)
    for path in conf.TAKEN_IN.values():
        assert (ROOT / path).is_file(), path


def test_every_page_is_in_the_contents(conf: ModuleType):
    """A page that nothing leads to is not found."""
    listed = set(re.findall(r"^([\w/*-]+)$", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE))
    found = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    found = {name for name in found if not name.startswith(("_build/", "decisions/")) and name != "index"}
    assert found <= listed and "decisions/*" in listed


def test_links_stay_on_the_site(conf: ModuleType):
    """A link of a page taken in leads out of the site, to a file that is not there."""
    for path in DOCS.rglob("*.md"):
        if "_build" in path.parts:
            continue
        name = path.relative_to(DOCS).with_suffix("").as_posix()
        for target in links(conf.page(name, path.read_text(encoding="utf-8"))):
            found = Path(os.path.normpath(path.parent / target.partition("#")[0])) if target[:1] != "#" else path
            picture = found.suffix in (".png", ".svg")
            assert (found.is_file() and found.is_relative_to(DOCS)) or picture, f"{name}: {target}"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[log](../../research/archive-0.1/log.md)", "[log](../site/log.md)"),
        ("[log](../../research/archive-0.1/log.md#ablations)", "[log](../site/log.md#ablations)"),
        ("[start](../../README.md)", "[start](../index.md)"),
        ("[gate](gate-and-rollback.md)", "[gate](gate-and-rollback.md)"),
        ("[params.yaml](../../params.yaml)", "params.yaml"),
        ("[settings](../../params.yaml)", "settings (`params.yaml`)"),
        ("[results](../../research/results)", "results (`research/results`)"),
        ("[paper](https://arxiv.org/abs/2604.23336)", "[paper](https://arxiv.org/abs/2604.23336)"),
        ("![plot](../../research/results/a.png)", "![plot](../../research/results/a.png)"),
        (
            "```md\n[log](../../research/archive-0.1/log.md)\n```\n",
            "```md\n[log](../../research/archive-0.1/log.md)\n```\n",
        ),
    ],
)
def test_links_are_changed(conf: ModuleType, written: str, shown: str):
    """A link that works on a code host is dead on the site."""
    assert conf.page("guides/example", written) == shown


def test_nothing_comes_from_elsewhere(conf: ModuleType):
    """A site that is opened without a network lacks its fonts, or waits for them."""
    assert conf.extensions == ["myst_parser", "sphinx_copybutton"]
    assert not re.search(r"https?://", (DOCS / "conf.py").read_text(encoding="utf-8"))
