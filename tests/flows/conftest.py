"""Fixtures of the flow tests."""

from tests.stores import one_thread, prepared  # noqa: F401
