"""The document prior on top of a system: which rows it is fitted on, and what it adds to a run."""

import numpy as np
import pytest

from rabtriever.data.beir_io import Dataset
from rabtriever.evaluation import prior as module
from rabtriever.evaluation.prior import Prior
from rabtriever.models.document_prior import PriorFeatures, PriorWeights
from rabtriever.training.inputs import TrainingInputs, training_inputs

ROWS = {name: row for row, name in enumerate(
    ("sponge", "kettle", "ladder", "torch", "broom", "blanket", "scissors", "bucket")
)}  # fmt: skip


@pytest.fixture
def dataset(toy) -> Dataset:
    """The toy data with two dev queries."""
    dev = {"new-0": {"kettle": 2, "torch": 0}, "new-1": {"bucket": 1}}
    queries = {**toy.queries, "new-0": "a cup of tea", "new-1": "water for the plants"}
    return Dataset(toy.corpus, queries, {"train": toy.qrels, "dev": dev})


@pytest.fixture
def inputs(dataset, prompt) -> TrainingInputs:
    return training_inputs(dataset, prompt)


@pytest.fixture
def features() -> PriorFeatures:
    rng = np.random.default_rng(4)
    return PriorFeatures(rng.normal(size=(8, 32)).astype(np.float32), rng.random(8), np.log1p(np.arange(8.0)))


@pytest.fixture
def prior(backbone, features) -> Prior:
    return Prior(backbone, features, ROWS)


def test_features_are_of_the_training_judgements(backbone, inputs, dataset):
    """The prior has seen dev, or a document has what is told of another."""
    embeddings = backbone.encode(inputs.document_ids, 8)
    found = Prior.of(backbone, inputs, embeddings)
    assert found.row_of == ROWS and found.model is backbone
    # two queries ask for each of six tools, and the torch has a grade of six more
    assert np.expm1(found.features.popularity) == pytest.approx([2, 2, 2, 8, 2, 2, 0, 0])
    # a few counted by hand: the direction of both queries less that of all, shrunk by 2 / (2 + 5)
    asked = backbone.encode(inputs.prompt.query.ids([dataset.queries[name] for name in inputs.judgements.query_ids]), 8)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    own = asked[[inputs.judgements.query_ids.index(f"ladder-{number}") for number in (0, 1)]].sum(0)
    wanted = 2 / 7 * (own / np.linalg.norm(own) - asked.mean(0))
    assert found.features.centroids[ROWS["ladder"]] == pytest.approx(wanted, abs=1e-5)
    assert not found.features.centroids[ROWS["bucket"]].any()


def test_fit_is_of_the_first_documents_of_each_dev_query(prior, dataset, inputs, monkeypatch):
    """Scores of one query stand in another's row, in another unit, or beside another document's judgement."""
    monkeypatch.setattr(module, "DEPTH", 3)
    seen = {}
    monkeypatch.setattr(module, "fit_prior", lambda *facts: (seen.update(enumerate(facts)), PriorWeights(1.0))[1])
    run = {"new-1": {"bucket": 0.25, "broom": 0.5}, "new-0": {"sponge": 0.1, "torch": 0.4, "kettle": 0.4, "broom": 0.2}}
    assert prior.fitted(run, dataset, inputs, nats=20.0) == PriorWeights(1.0)
    assert seen[0].tolist() == [[4, 7, -1], [1, 3, 4]], "ties by name; the fourth is not read"
    assert seen[1].tolist() == [[10.0, 5.0, 0.0], [8.0, 8.0, 4.0]]
    ids = inputs.prompt.query.ids([dataset.queries["new-1"], dataset.queries["new-0"]])
    assert seen[2] == pytest.approx(prior.model.encode(ids, 2), abs=1e-5)
    assert seen[3] is prior.features and seen[4] == [{7: 1}, {1: 2, 3: 0}]


def test_what_is_added_to_a_run(prior, dataset, inputs, features):
    """The prior of a document is added to another's score, in another unit, or with the sign turned."""
    run = {"new-0": {"torch": 0.5, "kettle": 0.25}, "new-1": {"bucket": -1.0}}
    found = prior.added(run, dataset, inputs, PriorWeights(4.0, 3.0, 2.0), nats=20.0)
    assert {query: set(scores) for query, scores in found.items()} == {
        "new-0": {"torch", "kettle"}, "new-1": {"bucket"},
    }  # fmt: skip
    for query, scores in run.items():
        (asked,) = prior.model.encode(inputs.prompt.query.ids([dataset.queries[query]]), 1)
        asked = asked / np.linalg.norm(asked)
        for name, score in scores.items():
            row = ROWS[name]
            near = float(features.centroids[row] @ asked)
            wanted = 20 * score + 4 * near + 2 * np.log1p(row) - 3 * features.hubness[row]
            assert found[query][name] == pytest.approx(wanted, abs=1e-4)


def test_no_weights_leave_the_run_in_nats(prior, dataset, inputs):
    """A prior that says nothing changes a ranking."""
    run = {"new-0": {"torch": 0.5, "kettle": 0.25}}
    assert prior.added(run, dataset, inputs, PriorWeights(), nats=20.0) == {"new-0": {"torch": 10.0, "kettle": 5.0}}
    assert prior.added({"new-0": {}}, dataset, inputs, PriorWeights(1.0)) == {"new-0": {}}
