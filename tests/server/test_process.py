"""The server as a process, over real versions of a real registry: promoted under load, broken, stopped, killed."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rabtriever.core.artifacts import read_manifest
from rabtriever.lm.prompt import Prompt
from rabtriever.models.predictor import Predictor
from rabtriever.ops import registry, tracking
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from tests.server.processes import Client, Load, served
from tests.small_retriever import FACTS, PARAMS
from tests.toy import wait_for

pytestmark = pytest.mark.slow

QUERY = "the power is out"
SEARCH = {"query": QUERY, "k": 2}


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, store_template: Path, make_backbone: Any, prompt_params: Any, toy: Any
) -> Iterator[Path]:
    """Three versions of a small retriever; the first is the champion, the third has lost a file."""
    folder, before = tmp_path_factory.mktemp("serving"), Path.cwd()
    (folder / "mlruns").mkdir()
    shutil.copy(store_template, folder / "mlruns/mlflow.db")
    os.chdir(folder)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("MLFLOW_TRACKING_URI", tracking.PARENT_RUN, "DVC_STAGE"):
                patch.delenv(name, raising=False)
            versions = [_registered(seed, make_backbone, prompt_params, toy) for seed in (0, 1, 2)]
            registry.promote(versions[0])
            broken = registry.local_folder(versions[2]) / "documents.safetensors"
            broken.write_bytes(broken.read_bytes()[:-8])
        yield folder
    finally:
        os.chdir(before)


def _registered(seed: int, make_backbone: Any, prompt_params: Any, toy: Any) -> registry.RegisteredVersion:
    """A version of an untrained student over the toy corpus; another seed has other weights."""
    backbone = make_backbone(seed)
    backbone.configure(similarity=3.0)
    torch.manual_seed(seed)
    prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
    predictor = Predictor(backbone.width, hidden=12, products=5, similarity=3.0)
    direction = (backbone.head_weight[prompt.yes_id] - backbone.head_weight[prompt.no_id]).detach()
    scorer = Scorer(backbone, prompt, predictor, direction)
    documents = scorer.encode_documents([one.contents for one in toy.corpus.values()])
    retriever = Retriever.assemble(scorer, toy.corpus, documents, PARAMS)
    retriever.save("models/retriever", {"data": "0" * 64}, FACTS)
    with tracking.stage_run("register", {}) as run:
        return registry.register(run, "models/retriever", "0" * 16, {"dataset": "toy", "systems": {}}, {})


@pytest.fixture
def at(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as the working folder, with the first version as its champion and no changed documents."""
    monkeypatch.chdir(project)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    _promote("1")
    for path in (project / "mlruns").glob("documents.db*"):
        path.unlink()
    yield project


def _promote(number: str) -> None:
    version = registry.get(number)
    assert version is not None
    registry.promote(version)


def _ready(client: Client) -> dict[str, Any]:
    status, answer = client.ask("GET", "/readyz")
    assert status == 200
    return answer


def _hash(number: str) -> str:
    version = registry.get(number)
    assert version is not None
    return read_manifest(registry.local_folder(version), "retriever").hash[:12]


def test_a_promotion_a_rollback_and_a_broken_version_under_load(at: Path) -> None:
    """Prevents a failed request while versions change, an answer of two versions, and a broken one in service."""
    expected: dict[str, Any] = {}
    with served(at) as server:
        client = server.client()

        def seen(check: Callable[[dict[str, Any]], bool]) -> None:
            wait_for(lambda: check(_ready(client)), 120)

        expected["1"] = client.ask("POST", "/v1/search", SEARCH)[1]
        with Load(server, 4, lambda asked: asked.ask("POST", "/v1/search", SEARCH)) as load:
            _promote("2")
            seen(lambda ready: ready["version"] == "2" and ready["failure"] is None)
            expected["2"] = client.ask("POST", "/v1/search", SEARCH)[1]
            _promote("3")
            seen(lambda ready: ready["failure"] is not None)
            ready = _ready(client)
            assert ready["version"] == "2" and ready["failure"]["version"] == "3"
            assert "documents.safetensors" in ready["failure"]["reason"]
            assert server.figure("swap_failing") == 1 and server.figure("swap_failures_total") >= 1
            _promote("1")
            seen(lambda ready: ready["version"] == "1" and ready["failure"] is None)
            count = len(load.answers)
            wait_for(lambda: len(load.answers) > count + 8, 60)
        assert server.figure("swaps_total") == 2 and server.figure("swap_failing") == 0
        assert "version 3 did not take over" in server.log.read_text()
    assert {version: answer["model"] for version, answer in expected.items()} == {"1": _hash("1"), "2": _hash("2")}
    assert expected["1"]["hits"] != expected["2"]["hits"]
    failed = [answer for answer in load.answers if isinstance(answer, Exception) or answer[0] != 200]
    assert failed == [] and len(load.answers) > 50
    for _, found in load.answers:
        _check_same(found, expected[found["version"]])
    assert {found["version"] for _, found in load.answers} == {"1", "2"}


def _check_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """One answer is another; scores may differ by the rounding of a batch of another size."""
    assert {**found, "hits": None} == {**expected, "hits": None}
    for hit, other in zip(found["hits"], expected["hits"], strict=True):
        assert hit["id"] == other["id"] and hit["score"] == pytest.approx(other["score"], abs=1e-4)


def test_requests_in_progress_finish_after_sigterm(at: Path) -> None:
    """Prevents a deployment that cuts answers off."""
    texts = [f"text number {number} " + "with many words " * 10 for number in range(600)]
    answers: list[Any] = []
    with served(at) as server:
        body = {"query": QUERY, "documents": texts}
        thread = threading.Thread(target=lambda: answers.append(server.ask("POST", "/v1/rerank", body)))
        thread.start()
        wait_for(lambda: server.figure("requests_in_progress") == 2, 30)  # that one, and the one that asks
        server.process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert server.process.wait(60) == -signal.SIGTERM
        assert "Traceback" not in server.log.read_text()
    (status, answer) = answers[0]
    assert status == 200 and len(answer["results"]) == len(texts)


def test_what_was_answered_with_200_outlives_a_kill(at: Path) -> None:
    """Prevents a document that a client believes to be stored from being lost."""
    kept, removed = [], []
    for attempt in range(2):
        with served(at) as server:
            client = server.client()
            known = {document["id"] for document in _everything(client)}
            assert set(kept) - set(removed) <= known and not set(removed) & known
            for number in range(3):
                name = f"new-{attempt}-{number}"
                put = {"documents": [{"id": name, "title": "Head torch", "text": f"light number {number}"}]}
                assert client.ask("POST", "/v1/documents", put)[0] == 200
                kept.append(name)
            assert client.ask("DELETE", f"/v1/documents/new-{attempt}-0")[0] == 200
            removed.append(f"new-{attempt}-0")
            server.process.kill()
    with served(at) as server:
        known = {document["id"] for document in _everything(server.client())}
    assert known == {"new-0-1", "new-0-2", "new-1-1", "new-1-2"} | _corpus(at)


def _everything(client: Client) -> list[dict[str, Any]]:
    status, answer = client.ask("POST", "/v1/search", {"query": QUERY, "k": 100})
    assert status == 200
    return answer["hits"]


def _corpus(folder: Path) -> set[str]:
    from rabtriever.data.beir_io import read_corpus

    return set(read_corpus(folder / "models/retriever/corpus.jsonl"))


def test_a_start_that_cannot_serve_says_why(at: Path) -> None:
    """Prevents a stack trace, and a server that waits for a version that never loads."""
    with pytest.raises(AssertionError, match=r"rabtriever serve: .*documents.safetensors"), served(at, "--model", "3"):
        pass


def test_serving_loads_no_training_library(at: Path) -> None:
    """Prevents seconds at start and megabytes for what only training uses."""
    import subprocess
    import sys

    from tests.toy import ROOT

    code = (
        "import sys\n"
        "from rabtriever.server.settings import ServeSettings\n"
        "from rabtriever.server.backend import Backend\n"
        "from rabtriever.server.versions import store_of\n"
        "from rabtriever.server.app import create_app\n"
        "settings = ServeSettings()\n"
        "backend = Backend(settings, store_of(settings)); backend.load(); create_app(backend, settings)\n"
        "found = {'lightning', 'prefect', 'dvc', 'great_expectations', 'mlflow'} & set(sys.modules)\n"
        "sys.exit(f'imported {found}' if found else 0)\n"
    )
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
