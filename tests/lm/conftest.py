"""Fixtures of the tests that compute states."""

from tests.states import every_step, groups_of_one_length  # noqa: F401
