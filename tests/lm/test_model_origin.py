"""Where a backbone came from: its name and licence, without a folder of this machine and without a network."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from rabtriever.lm.model_origin import Origin, model_origin


def model(folder: Path, card: str | None = None) -> Path:
    """A folder that passes for a model, with a README.md or without."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    if card is not None:
        (folder / "README.md").write_text(card)
    return folder


def test_what_is_built_from_scratch_has_no_origin():
    """A licence of nobody's weights."""
    assert model_origin("", "") == Origin("", "", "")


def test_a_hub_model_is_named_with_its_commit():
    """A name without its commit is another model next month."""
    assert model_origin("acme/tiny", "abc") == Origin("acme/tiny", "abc", "")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\ntags: [a]\nlicense: apache-2.0\n---\n# M\n", "apache-2.0"),
        ('---\nlicense: "mit"\n---\n', "mit"),
        ("# M\nlicense: mit\n", ""),
        ("---\nlicense_name: own\n---\n", ""),
        (None, ""),
    ],
)
def test_a_folder_is_named_without_its_path(tmp_path: Path, card: str | None, licence: str):
    """The path of somebody's machine in a card that is handed on; a licence from the prose."""
    assert model_origin(str(model(tmp_path / "secret/tiny", card)), "") == Origin("tiny", "", licence)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [({"License": "MIT"}, "MIT"), ({"License": "Permission is\nhereby granted"}, ""), ({}, "")],
)
def test_a_package_tells_its_licence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], licence: str
):
    """The whole text of a licence in a table cell, or none where the package names it."""
    model(tmp_path / "tiny_lm/model")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: {"tiny_lm": ["tiny-lm"]})
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: fields if name == "tiny-lm" else None)
    assert model_origin("package:tiny_lm/model", "") == Origin("package:tiny_lm/model", "", licence)
