"""Fixtures of the tests that train."""

from tests.states import every_step, groups_of_one_length  # noqa: F401
from tests.stores import one_thread, prepared  # noqa: F401
