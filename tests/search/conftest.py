"""Fixtures of the tests that compute states, and a small retriever."""

from tests.small_retriever import documents, folder, retriever, scorer  # noqa: F401
from tests.states import every_step, groups_of_one_length  # noqa: F401
