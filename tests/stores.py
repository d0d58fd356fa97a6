"""Fixtures of the rooms whose tests need a store or prepared data; each room's conftest.py takes them from here."""

import pytest
import torch

from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import Dataset
from rabtriever.data.preparation import write_dataset
from rabtriever.training.inputs import prepared_data
from tests.closure import ROOT


@pytest.fixture
def one_thread():
    """This process computes as each of two workers does on two cores: on other threads sums are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def prepared(store, toy) -> str:
    """The hash of the toy data, as stage prepare leaves them with two queries for dev; with the shipped settings."""
    Paths().params.write_text((ROOT / "params.yaml").read_text())
    names = list(toy.qrels)
    judged = {"train": names[:-2], "dev": names[-2:], "test": []}
    qrels = {split: {name: toy.qrels[name] for name in found} for split, found in judged.items()}
    write_dataset(Dataset(toy.corpus, toy.queries, qrels), Paths().prepared)
    return prepared_data(Paths().prepared)[1]
