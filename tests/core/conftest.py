"""Fixtures of the tests without models."""

from pathlib import Path

import pytest

from tests import toy_study


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two data folders and a small study `toy`."""
    return toy_study.toy_repository(tmp_path)
