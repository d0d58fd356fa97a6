"""Fixtures of the tests that compute states."""

import pytest

from rabtriever import padding


@pytest.fixture(autouse=True)
def groups_of_one_length(monkeypatch):
    """The texts here are so short that no batch would be read in groups."""
    monkeypatch.setattr(padding, "CPU_TOKENS", 1)
