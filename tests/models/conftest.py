"""Fixtures of the tests that compute states."""

from pathlib import Path

import pytest

from rabtriever import padding, training


@pytest.fixture(autouse=True)
def groups_of_one_length(monkeypatch):
    """The texts here are so short that no batch would be read in groups."""
    monkeypatch.setattr(padding, "CPU_TOKENS", 1)


@pytest.fixture
def every_step(monkeypatch, tmp_path) -> Path:
    """Checkpoints are written after every step; the folder they go to."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    return tmp_path / "checkpoints"
