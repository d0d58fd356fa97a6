"""Fixtures of the study's tests."""

from pathlib import Path

import pytest

from research.tests import toy_study
from tests.states import every_step, groups_of_one_length  # noqa: F401
from tests.stores import one_thread, prepared, project, store, store_template  # noqa: F401


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two data folders and a small study `toy`."""
    return toy_study.toy_repository(tmp_path)
