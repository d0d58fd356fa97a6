"""Fixtures of the study's tests: those of tests/, and a repository with the study files and a toy study."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from research.definition import Study, read_study
from tests.closure import ROOT
from tests.conftest import *  # noqa: F403
from tests.states import every_step, groups_of_one_length  # noqa: F401
from tests.stores import one_thread  # noqa: F401

TOY = {
    "settings": {"distill.steps": 3},
    "sets": {
        "one": {"source": "data/one", "profile": "small", "seeds": [7, 8], "documents": 5},
        "two": {"source": "data/two", "profile": "minilm", "seeds": [9], "settings": {"distill.steps": 4}},
    },
    "systems": {"bm25": None, "student": None, "wide": {"predictor.hidden": 64}},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with the shipped settings and studies, the study `toy`, and folders for its sets."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copytree(ROOT / "research/studies", tmp_path / "research/studies")
    (tmp_path / "research/studies/toy.yaml").write_text(yaml.safe_dump(TOY))
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def study(root: Path) -> Study:
    """The toy study."""
    return read_study("toy", root)


@pytest.fixture
def inputs(toy, prompt, judgements, query_ids, document_ids) -> Any:
    """The toy data as the trainings read them."""
    from rabtriever.data.beir_io import Dataset
    from rabtriever.training.inputs import TrainingInputs

    dataset = Dataset(toy.corpus, toy.queries, {"train": toy.qrels, "dev": {}, "test": {}})
    return TrainingInputs(dataset, judgements, prompt, query_ids, document_ids)
