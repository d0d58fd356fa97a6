"""Fixtures of the flow tests; only these start a Prefect server."""

from tests.toy import project, store, store_template  # noqa: F401
