"""Fixtures of the flow tests; only these start a Prefect server."""

import pytest
import torch

from tests.toy import project, store, store_template  # noqa: F401


@pytest.fixture
def one_thread():
    """This process computes as each of two workers does on two cores: on other threads sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
