"""What the registry makes of a store that fails and of a version that answers with nothing usable."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import types
from pathlib import Path
from typing import Any

import pytest

from flows import retrain
from flows.register import register as register_flow
from rabtriever.cli import main
from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.ops import registry, tracking
from tests.ops.test_tracking import register
from tests.toy import ToyRetriever, alias, build


@pytest.mark.parametrize("name", ["champion", "1"])
def test_a_store_that_fails_is_no_empty_one(store: Path, name: str) -> None:
    """Prevents a gate that sees no champion because the store was out of order, and promotes without comparison."""
    from mlflow.exceptions import MlflowException

    registry.promote(register(0.5))
    assert registry.get(name).version == "1"
    with contextlib.closing(sqlite3.connect("mlruns/mlflow.db")) as database:
        for table in ("registered_model_aliases", "model_versions"):
            database.execute(f"drop table {table}")
        database.commit()
    with pytest.raises(MlflowException, match="no such table"):
        registry.get(name)


@pytest.mark.parametrize("scores", [[], [float("nan")], [float("inf")]])
def test_an_answer_of_no_use_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Prevents promoting a version that loads and then finds nothing, or scores that are no numbers."""
    version = register(0.5)
    registry.check_answers(version)

    def useless(self: ToyRetriever, queries: list[str], k: int = 10) -> list[list[Any]]:
        return [[self._hit("d05", score) for score in scores] for _ in queries]

    monkeypatch.setattr(ToyRetriever, "search", useless)
    with pytest.raises(ArtifactMismatchError, match="version 1 answers .*expected one document with a finite score"):
        registry.check_answers(version)


@pytest.mark.parametrize("hits", [[{"doc_id": "d05"}], [{"score": None}], [["d05", 0.5]], None])
def test_an_answer_without_a_score_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch, hits: object) -> None:
    """Prevents a bare KeyError of a retriever that answers in another form."""
    version = register(0.5)
    monkeypatch.setattr(registry, "ask", lambda folder, query, k: hits)
    with pytest.raises(ArtifactMismatchError, match="version 1 does not answer: .*choose another version"):
        registry.check_answers(version)


def plant(version: str, marker: Path) -> Path:
    """Makes all code that a version carries write a file when it is executed; the model folder."""
    model = registry.local_folder(registry.get(version)).parent.parent
    files = [model / "pyfunc.py", *(model / "code").rglob("*.py")]
    assert len(files) > 20
    for file in files:
        file.write_text(f"open({str(marker)!r}, 'w').close()\n")
    return model


def test_code_of_a_version_is_never_executed(
    project: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents whoever can write to a registry from running code on each client of it, and in the gate (S01)."""
    marker = tmp_path_factory.mktemp("elsewhere") / "executed"
    build(0.5)
    assert retrain._refresh([]).decision["promoted"]
    plant("1", marker)
    build(0.9)
    register_flow.fn()
    model = plant("2", marker)
    assert retrain._refresh([]).decision["promoted"], "judged: its code is other, its retriever is the one registered"
    judged = registry.champion().version
    capsys.readouterr()
    for name in ("champion", "previous", "1", "2"):
        assert main(["search", "need 0", "--model", name]) == 0
        assert "d05" in capsys.readouterr().out, "the installed code answers"
    assert main(["models", "compare", "1", judged]) == main(["models", "show", judged]) == 0
    assert main(["rollback"]) == main(["rollback"]) == main(["models", "promote", "1"]) == 0
    assert alias("champion") == "1"
    assert not marker.exists()

    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        mlflow.pyfunc.load_model(str(model))
    assert marker.exists(), "as the docs say of MLflow's own server; else the test plants nothing"


@pytest.mark.parametrize(
    ("tag", "value", "why"),
    [
        ("artifact_path", "model/artifacts/../../..", "is not trusted: its tag artifact_path"),
        ("retriever_hash", "0" * 64, "is not trusted: its files are the retriever"),
        ("format", "9", "has format 9, this rabtriever answers 2"),
    ],
)
def test_a_version_that_is_not_trusted_is_named(
    store: Path, capsys: pytest.CaptureFixture[str], tag: str, value: str, why: str
) -> None:
    """Prevents answers, a promotion and a rollback of a version whose tags were changed (S01)."""
    registry.promote(register(0.5))
    registry.promote(register(0.6))
    tracking.client().set_model_version_tag(registry.MODEL, "1", tag, value)
    assert main(["search", "need 0", "--model", "1"]) == 1
    assert f"version 1 {why}" in capsys.readouterr().err
    for command in (["rollback"], ["models", "promote", "1"]):
        assert main(command) == 1
        assert f"version 1 {why}" in capsys.readouterr().err
    assert (alias("champion"), alias("previous")) == ("2", "1")


@pytest.mark.parametrize("found", [[1], {"q00": 3}, {"q00": {"nDCG@10": "1"}}, {"q00": {"nDCG@10": 7.5}}])
def test_metrics_that_are_none_are_refused(store: Path, found: Any) -> None:
    """Prevents a gate that compares with whatever somebody has put into a file of the champion (S01)."""
    version = register(0.5)
    path = registry.local_folder(version).parents[2] / "evaluation/per_query.json"
    path.write_text(json.dumps(found))
    with pytest.raises(ArtifactMismatchError, match="version 1 is not trusted: its per_query.json"):
        registry.per_query(version)


@pytest.fixture
def remote(store: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has the store of one registered version answer as a server does; the paths that are downloaded."""
    version, asked = register(0.5), []
    artifacts = registry.local_folder(version).parents[2]

    def download(run_id: str, path: str, target: str) -> str:
        asked.append(path)
        place = Path(target, path)
        place.parent.mkdir(parents=True)
        return str((shutil.copytree if (artifacts / path).is_dir() else shutil.copy)(artifacts / path, place))

    uri = types.SimpleNamespace(info=types.SimpleNamespace(artifact_uri="mlflow-artifacts:/1/2/artifacts"))
    fake = types.SimpleNamespace(
        get_run=lambda run_id: uri, download_artifacts=download, get_model_version=tracking.client().get_model_version
    )
    monkeypatch.setattr(tracking, "client", lambda: fake)
    return asked


def test_no_code_is_downloaded(remote: list[str]) -> None:
    """Prevents code of a server from reaching the disk of a client, where a later mistake may run it (S01)."""
    version = registry.get("1")
    assert registry.answer(version, "need 0", 1)[0]["doc_id"] == "d05"
    assert registry.answer(version, "need 0", 1) and registry.per_query(version)
    assert remote == ["model/artifacts", "evaluation/per_query.json"], "once each"
    assert not list(Path(".cache").rglob("*.py"))


@pytest.mark.parametrize("name", ["best.json", "more.json"])
def test_a_bad_download_is_not_kept(remote: list[str], name: str) -> None:
    """Prevents a client that refuses a version for good after its files were put right again (S01)."""
    version = registry.get("1")
    file = next(Path("mlruns/artifacts").rglob("artifacts/retriever/corpus.jsonl")).parent / name
    before = file.read_text() if file.exists() else None
    file.write_text("{}")
    with pytest.raises(ArtifactMismatchError, match=name):
        registry.local_folder(version)
    file.unlink() if before is None else file.write_text(before)
    assert registry.answer(version, "need 0", 1)[0]["doc_id"] == "d05"


@pytest.mark.parametrize("run_id", ["../../x", "a/b", "", None])
def test_a_run_that_names_a_folder_is_refused(remote: list[str], run_id: Any) -> None:
    """Prevents a download that overwrites files outside of the cache (S01)."""
    version = registry.RegisteredVersion("1", "", "", run_id, registry.get("1").tags)
    with pytest.raises(ArtifactMismatchError, match="version 1 is not trusted: its run is"):
        registry.local_folder(version)


def test_previous_is_another_retriever(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a rollback that puts the same retriever back after a change of code (S09)."""
    first, second = register(0.5), register(0.6)
    registry.promote(first)
    with monkeypatch.context() as patched:
        patched.setattr(registry, "code_here", lambda: "other")
        again = register(0.5)
        registry.promote(again)
        assert (again.version, alias("champion"), alias("previous")) == ("3", "3", None)
        with pytest.raises(ValueError, match="two promotions of different retrievers"):
            registry.rollback()
        registry.promote(second)
        registry.promote(register(0.6))
    assert (alias("champion"), alias("previous")) == ("4", "3"), "version 2 is the same retriever as 4"
    assert registry.rollback()[0].version == "3" and alias("previous") == "4"


def test_the_tenth_version_is_newer_than_the_ninth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents an order of numbers as texts, by which the gate and a new registration look at an old version."""
    tags = {"retriever_hash": "r", "data_hash": "d", registry.CODE_TAG: "code"}
    stored = [types.SimpleNamespace(version=number, tags=tags, run_id="run") for number in ("9", "10", "2")]
    client = types.SimpleNamespace(search_model_versions=lambda condition: stored)
    monkeypatch.setattr(tracking, "client", lambda: client)
    monkeypatch.setattr(registry, "code_here", lambda: "code")
    assert [one.version for one in registry.versions()] == ["10", "9", "2"]
    assert registry.find("r", "d").version == "10"
