"""Pages can be read: none is missing or too long, sentences are short, words are public, links lead somewhere."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest

from tests.closure import ROOT
from tests.docs.pages import NOTEBOOK, anchors, links, pages, sentences

LENGTHS = {  # most lines of a page, by where it is
    "README.md": 120,
    "docs/quickstart.md": 100,
    "docs/your-data.md": 100,
    "docs/results.md": 100,
    "docs/datasets.md": 100,
    "docs/guides/*.md": 100,
    "docs/concepts/*.md": 120,
    "docs/decisions/*.md": 40,
}
WANTED = {
    "docs/guides": (
        "backbones serve schedule alerts gate-and-rollback backup-and-move shared-registry scale-out troubleshooting"
    ),
    "docs/concepts": "how-it-works score-and-fold calibration versus-the-paper glossary",
    "docs/reference": "settings cli api formats",
    "docs": "index quickstart your-data results datasets",
}
LONGEST = 32  # words of a sentence
PRIVATE = (  # words that only this project uses, or English that has to be read twice
    r"beyond chance",
    r"leaves? zero out",
    r"the distilled one",
    r"scripts? apart",
    r"taken for new",
    r"\bis no (?:integer|number|file|text)\b",
)
PROSE = pages(generated=False)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_page_is_there():
    """A page that the contents name and nobody wrote is a dead end."""
    missing = [f"{folder}/{page}.md" for folder, names in WANTED.items() for page in names.split()]
    assert not [page for page in missing if not (ROOT / page).is_file()]


@pytest.mark.parametrize("place", LENGTHS)
def test_no_page_is_too_long(place: str):
    """A page that cannot be read in one sitting is not read."""
    found = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in ROOT.glob(place)}
    assert found, f"no page {place}"
    assert not {page: lines for page, lines in found.items() if lines > LENGTHS[place]}


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_sentences_are_short(page: Path):
    """A sentence that has to be read twice loses its reader."""
    found = sentences(page.read_text(encoding="utf-8"))
    assert not [sentence for sentence in found if len(sentence.split()) > LONGEST]


@pytest.mark.parametrize("page", PROSE, ids=name)
def test_words_are_public(page: Path):
    """A word that only its authors know explains nothing."""
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert not [pattern for pattern in PRIVATE if re.search(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("page", [*pages(), *(ROOT / path for path in NOTEBOOK)], ids=name)
def test_links_lead_somewhere(page: Path):
    """A page that was moved leaves links to nothing."""
    broken = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = Path(os.path.normpath(page.parent / path)) if path else page
        if not found.exists() or (anchor and found.suffix == ".md" and anchor not in anchors(found)):
            broken.append(target)
    assert not broken


def test_decisions_have_their_parts():
    """A decision without its measurement cannot be judged later, and one without an end is never looked at again."""
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [path.name[:3] for path in found]
    assert numbers == [f"{number:03}" for number in range(1, len(found) + 1)]
    for path in found:
        text = path.read_text(encoding="utf-8")
        assert text.startswith(f"# {path.name[:3]}: "), path.name
        parts = re.findall(r"^\*\*([\w ]+?)\.?\*\*", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Measurement", "Cost", "Look again"], path.name


def test_one_version_everywhere():
    """A citation of another version than the one released names the wrong code."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    newest = re.search(r"^## \[?([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None and newest.group(1) == version


def test_a_long_sentence_is_seen():
    """A checker that sees nothing lets everything pass."""
    text = (
        "# Title of the page\n\n| a | table |\n\n- An item: " + "word " * 40 + "end.\n\n```sh\n" + "x " * 50 + "\n```\n"
    )
    assert [len(sentence.split()) for sentence in sentences(text) if len(sentence.split()) > LONGEST] == [41]
