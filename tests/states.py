"""Fixtures of the rooms whose tests compute states; each room's conftest.py takes them from here."""

from pathlib import Path

import pytest

from rabtriever.lm import padding
from rabtriever.training import trainer


@pytest.fixture(autouse=True)
def groups_of_one_length(monkeypatch):
    """The texts here are so short that no batch would be read in groups."""
    monkeypatch.setattr(padding, "CPU_TOKENS", 1)


@pytest.fixture
def every_step(monkeypatch, tmp_path) -> Path:
    """Checkpoints are written after every step; the folder they go to."""
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    return tmp_path / "checkpoints"
