"""What MLflow's server answers with a registered version, and what it refuses, in which words."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from rabtriever.ops import registry, tracking
from tests.ops.test_tracking import register
from tests.toy import ROOT, ToyRetriever

Post = Callable[..., tuple[int, Any]]


@pytest.fixture
def model(store: Path) -> Any:
    """A registered toy retriever, loaded as MLflow's server loads it."""
    registry.promote(register(0.5))
    mlflow.set_tracking_uri(tracking.tracking_uri())
    return mlflow.pyfunc.load_model("models:/rabtriever@champion")


@pytest.fixture
def post(model: Any, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Sends rows to the server's /invocations; its status, and the hits of each row or the message."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc import scoring_server

    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # the server sets it for good
    client = TestClient(scoring_server.init(model))

    def send(rows: list[dict[str, Any]], **more: Any) -> tuple[int, Any]:
        got = client.post("/invocations", json={"dataframe_records": rows, **more})
        found = got.json()
        return got.status_code, [row["hits"] for row in found["predictions"]] if got.is_success else found["message"]

    return send


def counts(post: Post, rows: list[dict[str, Any]], **more: Any) -> list[int]:
    """How many documents each row gets."""
    status, hits = post(rows, **more)
    assert status == 200, hits
    return [len(row) for row in hits]


def test_pyfunc_answers_with_ranked_documents(model: Any) -> None:
    """Prevents a model whose signature refuses the documented input, or that forgets the wanted number."""
    answer = model.predict(pd.DataFrame({"query": ["need 0", "need 1"], "k": [1, 3]}))
    assert [len(hits) for hits in answer["hits"]] == [1, 3]
    assert answer["hits"][0][0]["doc_id"] == "d05" and set(answer["hits"][0][0]) == {"doc_id", "score", "title", "text"}
    assert len(model.predict(pd.DataFrame({"query": ["need 0"]}), params={"k": 2})["hits"][0]) == 2
    assert len(model.predict(pd.DataFrame({"query": ["need 0"]}))["hits"][0]) == 10
    assert model.metadata.metadata == {"rabtriever_format": 2}
    with pytest.raises(MlflowException, match="query"):
        model.predict(pd.DataFrame({"question": ["need 0"]}))
    for missing in (None, float("nan")):
        with pytest.raises(MlflowException, match="query 1 is missing, expected a text"):
            model.predict(pd.DataFrame({"query": ["need 0", missing]}))


def test_k_can_be_left_out(post: Post) -> None:
    """Prevents status 400 for a `k` that one row has and another has not, or that is null (P18)."""
    rows = [{"query": "need 0", "k": 1}, {"query": "need 1"}]
    assert counts(post, rows) == [1, 10]
    assert counts(post, rows, params={"k": 2}) == [1, 2]
    assert counts(post, [{"query": "need 0", "k": None}, {"query": "need 1", "k": 3}]) == [10, 3]
    assert counts(post, [{"query": "need 0", "k": None}]) == [10]
    assert counts(post, [{"query": "need 0"}], params={"k": None}) == [10]
    assert counts(post, [{"query": "need 0"}], params={"k": 4.0}) == [4]
    assert counts(post, [{"query": "need 0"}], params={}) == counts(post, [{"query": "need 0"}]) == [10]
    assert counts(post, [{"query": "need 0", "k": 1000}]) == [12], "all that there are"


@pytest.mark.parametrize("k", [0, -1, 1e9, 10**30, 1001])
def test_a_k_out_of_range_is_refused(post: Post, k: Any) -> None:
    """Prevents an answer with all documents of the corpus, and an error that only a log explains (P18, S13)."""
    sentence = f"k is {int(k)}; ask for at least 1 and at most 1,000 documents"
    status, message = post([{"query": "need 0", "k": k}])
    assert (status, message.endswith(sentence)) == (400, True), message
    if k < 1e18:
        status, message = post([{"query": "need 0"}], params={"k": k})
        assert (status, message.endswith(sentence)) == (400, True), message


@pytest.mark.parametrize("k", [2.5, "3", True, [2], {}])
def test_a_k_that_is_not_a_whole_number_is_refused(post: Post, k: Any) -> None:
    """Prevents a number that is rounded, or read out of a text, in silence (P18, S13)."""
    status, message = post([{"query": "need 0", "k": k}])
    assert status == 400 and "expected a whole number from 1 to 1,000" in message


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "query 1 is blank; write what is wanted"),
        (" \n", "query 1 is blank; write what is wanted"),
        (None, "query 1 is missing, expected a text"),
        (7, "query 1 is '7' (int), expected a text"),
        (["need 0"], "query 1 is \"['need 0']\" (list), expected a text"),
    ],
)
def test_a_query_of_no_use_is_refused(post: Post, query: Any, sentence: str) -> None:
    """Prevents "unexpected error" where the product has a sentence of its own (P18)."""
    status, message = post([{"query": "need 0"}, {"query": query}])
    assert (status, message.endswith(sentence)) == (400, True), message


def test_an_unknown_column_is_refused(post: Post, model: Any) -> None:
    """Prevents a misspelt `k` that is ignored, with status 200 (S13)."""
    status, message = post([{"query": "need 0", "topk": 3}])
    assert status == 400 and "the request has the unknown column 'topk', expected the column 'query'" in message
    with pytest.raises(MlflowException, match="unknown column 'K'"):
        model.predict(pd.DataFrame({"query": ["need 0"], "K": [3]}))


def test_an_unknown_parameter_is_refused(post: Post, model: Any) -> None:
    """Prevents a misspelt parameter that is ignored, with status 200 (S13)."""
    status, message = post([{"query": "need 0"}], params={"kk": 3})
    assert status == 400 and "the request has the unknown parameter 'kk', expected 'k'" in message
    with pytest.raises(MlflowException, match="unknown parameter 'top'"):
        model.predict(pd.DataFrame({"query": ["need 0"]}), params={"k": 3, "top": 1})


def test_other_models_of_a_process_are_left_alone(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Prevents a notebook in which every other model refuses what MLflow lets pass (S13)."""

    class Other(mlflow.pyfunc.PythonModel):
        def predict(self, context: Any, model_input: Any, params: Any = None) -> int:
            return len(model_input)

    schema = mlflow.types.Schema([mlflow.types.ColSpec("string", "query")])
    signature = mlflow.models.ModelSignature(
        inputs=schema, params=mlflow.types.ParamSchema([mlflow.types.ParamSpec("k", "long", 1)])
    )
    kept = mlflow.models.Model(signature=signature)
    wrapped = type("Wrapped", (), {"python_model": Other(), "predict": lambda self, data, params=None: len(data)})()
    other = mlflow.pyfunc.PyFuncModel(kept, wrapped)
    assert other.predict(pd.DataFrame({"query": ["a"], "more": [1]}), params={"kk": 1}) == 1
    logging.getLogger("mlflow.models.utils").warning("Unrecognized params ['x'] are ignored")


@pytest.mark.parametrize(
    ("queries", "sentence"),
    [
        (["a" * 20_001], "query 0 has 20,001 characters, expected at most 20,000"),
        (["a"] * 1_001, "the request has 1,001 queries, expected at most 1,000"),
        (["a" * 20_000] * 51, "the queries have 1,020,000 characters in all, expected at most 1,000,000"),
    ],
)
def test_a_request_too_large_is_refused_before_it_is_read(
    post: Post, monkeypatch: pytest.MonkeyPatch, queries: list[str], sentence: str
) -> None:
    """Prevents gigabytes of memory, and minutes of work for a client that has gone, by one request (S03)."""

    def search(self: ToyRetriever, queries: list[str], k: int) -> Any:
        raise AssertionError("tokenised")

    monkeypatch.setattr(ToyRetriever, "search", search)
    status, message = post([{"query": query} for query in queries])
    assert status == 400 and sentence in message
    assert len(message) < 10_000, "the request is not sent back"


def test_a_request_at_the_limits_is_answered(post: Post) -> None:
    """Prevents reading 'at most' as 'below' (S03)."""
    assert counts(post, [{"query": "a" * 20_000, "k": 1}] * 50) == [1] * 50
    assert counts(post, [{"query": "a", "k": 1}] * 1_000) == [1] * 1_000


def test_version_answers_in_another_process(store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prevents a version that MLflow's server can load in this working folder alone, or with an installed package."""
    version = register(0.5)
    registry.promote(version)
    code = registry.local_folder(version).parent.parent / "code" / "rabtriever"
    (code / "search" / "retriever.py").write_text("from tests.toy import ToyRetriever as Retriever\n")
    program = (
        "import mlflow.pyfunc, pandas\n"
        "model = mlflow.pyfunc.load_model('models:/rabtriever@champion')\n"
        "print(model.predict(pandas.DataFrame({'query': ['need 0']}))['hits'][0][0]['doc_id'])\n"
        "import rabtriever\n"
        "print(rabtriever.__file__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env={**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": tracking.tracking_uri()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["d05", str(code / "__init__.py")]
