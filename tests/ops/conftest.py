"""Fixtures of the tests of tracking and registry."""

from tests.stores import one_thread, prepared, project, store, store_template  # noqa: F401
