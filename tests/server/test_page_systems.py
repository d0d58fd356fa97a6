"""The systems beside the student: opened in the background, of the project folder, over what is served."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rabtriever.core.artifacts import read_manifest
from rabtriever.core.stages import Paths
from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.preparation import write_dataset
from rabtriever.server import systems as systems_module
from rabtriever.server.project import Project
from rabtriever.server.systems import NAMES, Systems


def opened(systems: Systems, seconds: float = 60) -> dict[str, dict[str, str]]:
    """The states when none is opening any more."""
    end = time.monotonic() + seconds
    while any(one["state"] == "opening" for one in systems.states().values()):
        assert time.monotonic() < end, systems.states()
        time.sleep(0.02)
    return systems.states()


@pytest.fixture
def served(toy: Any) -> SimpleNamespace:
    """What is in service."""
    return SimpleNamespace(documents=list(toy.corpus.values()))


@pytest.fixture
def models(tmp_path: Path, toy: Any, make_backbone: Callable[..., Any], prompt_params: Any, prompt: Any) -> Project:
    """A project with an untrained bi-encoder and teacher."""
    from dataclasses import asdict

    import yaml

    from rabtriever.training.model_io import save_model

    paths = Paths.below(tmp_path)
    write_dataset(Dataset(toy.corpus, toy.queries, {"train": toy.qrels, "test": {}}), paths.prepared)
    paths.params.write_text(yaml.safe_dump({"prompt": asdict(prompt_params)}))
    data = {"data": read_manifest(paths.prepared, "data").hash}
    teacher = make_backbone(1)
    teacher.configure(similarity=16.0)
    save_model(paths.biencoder, "biencoder", make_backbone(0), prompt, data)
    save_model(paths.teacher, "teacher", teacher, prompt, data)
    return Project(tmp_path)


def test_nothing_is_opened_before_somebody_looks(models: Project, served: SimpleNamespace):
    """The page answers at once: models are opened in the background."""
    systems = Systems(models, lambda: served)
    with pytest.raises(LookupError, match="bm25 is closed"):
        systems.rank("bm25", "tea", 3)
    assert set(systems.states()) == set(NAMES)
    assert {one["state"] for one in opened(systems).values()} == {"ready"}


def test_bm25_ranks_documents_that_share_a_word(models: Project, served: SimpleNamespace):
    """Documents without a word in common have no order, and are no hits."""
    systems = Systems(models, lambda: served)
    opened(systems)
    found = systems.rank("bm25", "crumbs and dust", 5)
    assert [doc_id for doc_id, _ in found.hits] == ["broom"] and found.milliseconds > 0


def test_the_bi_encoder_ranks_as_in_the_evaluation(models: Project, served: SimpleNamespace, make_backbone, prompt):
    """Another order than the run's would explain nothing."""
    systems = Systems(models, lambda: served)
    opened(systems)
    found = systems.rank("biencoder", "I am freezing", 8).hits
    backbone = make_backbone(0)
    documents = unit(backbone.encode(prompt.document.ids([d.contents for d in served.documents]), 4))
    scores = (unit(backbone.encode(prompt.query.ids(["I am freezing"]), 1)) @ documents.T)[0]
    assert [doc_id for doc_id, _ in found] == [served.documents[row].doc_id for row in np.argsort(-scores)]
    assert found[0][1] == pytest.approx(float(scores.max()), abs=1e-5)


def test_the_teacher_scores_candidates_as_in_the_evaluation(
    models: Project, served: SimpleNamespace, make_backbone, prompt
):
    """A live score without the cosine would be of another teacher."""
    from rabtriever.models.reranker import Reranker
    from rabtriever.training.model_io import open_model

    systems = Systems(models, lambda: served)
    opened(systems)
    some = [served.documents[row] for row in (5, 0, 3)]
    found = dict(systems.read("it is dark in the cellar", some).hits)

    corpus = sorted(served.documents)  # the whole corpus, as the pipeline has it
    teacher, *_ = open_model(models.paths.teacher, "teacher", *systems_module._parents(models.paths))
    ids = prompt.document.ids([document.contents for document in corpus])
    pairs = np.array([(0, row) for row in range(len(corpus))])
    query = prompt.query.ids(["it is dark in the cellar"])
    expected = np.empty(len(corpus))
    for part in Reranker(teacher, prompt, make_backbone(0)).score_pairs(query, ids, pairs, 4):
        expected[part.pairs] = part.scores
    wanted = {document.doc_id: score for document, score in zip(corpus, expected, strict=True) if document in some}
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_system_that_is_not_at_hand_says_why(tmp_path: Path, served: SimpleNamespace):
    """A column of a server without a project is empty for a reason."""
    states = opened(Systems(Project(tmp_path), lambda: served))
    assert states["bm25"] == {"state": "ready", "reason": ""}
    for name in ("biencoder", "teacher"):
        assert states[name]["state"] == "missing" and "params.yaml" in states[name]["reason"]


def test_added_documents_are_ranked(models: Project, served: SimpleNamespace):
    """The student finds what was added; the others have to be opened with it as well."""
    now = [served]
    systems = Systems(models, lambda: now[0])
    opened(systems)
    now[0] = SimpleNamespace(documents=[*served.documents, Document("new", "Umbrella", "keeps rain off")])
    opened(systems)
    assert systems.rank("bm25", "rain", 3).hits[0][0] == "new"
    assert "new" in dict(systems.rank("biencoder", "rain", 9).hits)
    assert "new" in dict(systems.read("rain", now[0].documents).hits)


def test_a_large_corpus_is_not_encoded(models: Project, served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    """Minutes of the processors that answer queries would go into a column."""
    monkeypatch.setattr(systems_module, "MOST_ENCODED", 7)
    assert "8 documents" in opened(Systems(models, lambda: served))["biencoder"]["reason"]


def test_the_precision_of_the_process_stays(models: Project, served: SimpleNamespace, monkeypatch: pytest.MonkeyPatch):
    """Opening a model for training must not round the scores that are served."""
    import torch

    from rabtriever.training import model_io

    def rounding() -> str:
        torch.set_float32_matmul_precision("high")
        return "cpu"

    monkeypatch.setattr(model_io, "training_device", rounding)
    before = torch.get_float32_matmul_precision()
    opened(Systems(models, lambda: served))
    assert torch.get_float32_matmul_precision() == before == "highest"
