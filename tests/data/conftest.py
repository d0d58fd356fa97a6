"""Fixtures of the tests of data."""

from tests.stores import one_thread, prepared  # noqa: F401
