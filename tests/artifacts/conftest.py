"""Fixtures of the registry tests."""

from tests.toy import store, store_template  # noqa: F401
