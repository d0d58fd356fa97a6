"""Fixtures of the tests of data."""

from tests.stores import one_thread, prepared, project, store, store_template  # noqa: F401
