"""Fixtures of the flow tests."""

from tests.stores import one_thread, prepared, project, store, store_template  # noqa: F401
