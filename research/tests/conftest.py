"""Fixtures of the study's tests: those of tests/, and a repository with a small study."""

from pathlib import Path

import pytest

from research.tests import toy_study
from tests.conftest import *  # noqa: F403
from tests.states import every_step, groups_of_one_length  # noqa: F401
from tests.stores import one_thread  # noqa: F401


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two data folders and a small study `toy`."""
    return toy_study.toy_repository(tmp_path)
