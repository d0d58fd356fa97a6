"""Where stages compute."""

import pytest
import torch

from rabtriever.lm.backbone import default_device
from rabtriever.training.model_io import training_device


@pytest.fixture
def precision():
    """Puts the precision of the process back."""
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_only_training_changes_the_precision(precision, monkeypatch):
    """A search in someone's program makes all other products of that program coarser, or training takes its time."""
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert default_device() == "cuda" and torch.get_float32_matmul_precision() == "highest"
    assert training_device() == "cuda" and torch.get_float32_matmul_precision() == "high"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.set_float32_matmul_precision("highest")
    assert training_device() == "cpu" and torch.get_float32_matmul_precision() == "highest"
