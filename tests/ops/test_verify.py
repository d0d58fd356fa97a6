"""The champion and the store, looked at before a run."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, write_json
from rabtriever.ops import registry, tracking, verify
from rabtriever.ops.answering import FORMAT_TAG
from tests.ops.test_tracking import register
from tests.toy import dataset, write_retriever


@pytest.fixture
def champion(store: Path) -> registry.RegisteredVersion:
    """A project with a champion, as a run leaves it."""
    version = register(0.5)
    registry.promote(version)
    write_json("reports/data.json", {"hash": dataset().hash})
    write_json("reports/registration.json", {"retriever_hash": version.retriever_hash})
    write_json("reports/promotion.json", {"version": "1"})
    return version


def _change(folder: Path) -> None:
    (folder / "best.json").write_text("{}")


def _replace(folder: Path) -> None:
    write_retriever(folder, dataset(), 0.9)


@pytest.mark.parametrize(
    ("damage", "told"),
    [(_change, "best.json has"), (shutil.rmtree, "has lost its files"), (_replace, "its files are the retriever")],
)
def test_a_damaged_champion_is_told(
    champion: registry.RegisteredVersion, damage: Callable[[Path], None], told: str
) -> None:
    """S05. Prevents "nothing to do" beside a champion whose files are changed, gone, or another retriever's."""
    verify.check_files()
    damage(registry.local_folder(champion))
    with pytest.raises(ArtifactMismatchError, match=f"the champion, version 1, is damaged: .*{told}") as raised:
        verify.check_files()
    assert "models/retriever is the same retriever: run python -m flows.register" in str(raised.value)
    write_retriever("models/retriever", dataset(), 0.1)
    with pytest.raises(ArtifactMismatchError, match=r"rabtriever rollback --to N\), or restore a backup"):
        verify.check_files()


def test_the_advised_repair_works(champion: registry.RegisteredVersion) -> None:
    """S05. Prevents a check that the advised new version of the same retriever cannot pass."""
    shutil.rmtree(registry.local_folder(champion))
    assert register(0.5).version == "2"
    verify.check_files()
    shutil.rmtree(registry.local_folder(registry.get("2")))
    with pytest.raises(ArtifactMismatchError, match="the champion, version 1, is damaged"):
        verify.check_files()


def test_a_champion_that_does_not_answer_is_told(
    champion: registry.RegisteredVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S05. Prevents "nothing to do" beside a champion that no server could load."""
    asked = []

    def check(version: registry.RegisteredVersion) -> None:
        asked.append(version.version)
        raise ArtifactMismatchError("version 1 does not answer")

    monkeypatch.setattr(registry, "check_answers", check)
    with pytest.raises(ArtifactMismatchError, match="does not answer"):
        verify.check_answer()
    assert asked == ["1"]


@pytest.mark.parametrize("found", ["1", None])
def test_a_champion_of_an_older_format_stops_nothing(
    champion: registry.RegisteredVersion, capsys: pytest.CaptureFixture[str], found: str | None
) -> None:
    """Prevents an upgrade after which no run can train the version that would replace the champion."""
    client = tracking.client()
    client.delete_model_version_tag(registry.MODEL, "1", FORMAT_TAG)
    if found is not None:
        client.set_model_version_tag(registry.MODEL, "1", FORMAT_TAG, found)
    told = f"version 1 has format {found or 0}, which is not answered here; make run trains a new one\n"
    verify.check_files()
    assert capsys.readouterr().out == told
    verify.check_answer()
    assert capsys.readouterr().out == ""
    with pytest.raises(ArtifactMismatchError, match=f"version 1 has format {found or 0}, this rabtriever answers 2"):
        registry.check_answers(registry.champion())


def _lose_database() -> None:
    Path("mlruns/mlflow.db").unlink()


def _empty_database() -> None:
    with contextlib.closing(sqlite3.connect("mlruns/mlflow.db")) as connection:
        for table in ("registered_model_aliases", "model_version_tags", "model_versions", "tags", "params", "runs"):
            connection.execute(f"delete from {table}")
        connection.commit()


def _lose_folder() -> None:
    shutil.rmtree("mlruns")


@pytest.mark.parametrize("lose", [_lose_database, _empty_database, _lose_folder])
def test_an_empty_store_beside_artefacts_is_refused(
    champion: registry.RegisteredVersion, lose: Callable[[], None]
) -> None:
    """S05. Prevents a lost registry from passing for a first run, whose gate has a lower bar."""
    lose()
    before = sorted(Path().rglob("*"))
    with pytest.raises(FileNotFoundError, match=r"rabtriever restore FILE --force.*MLFLOW_TRACKING_URI") as raised:
        verify.check_files()
    assert sorted(Path().rglob("*")) == before
    for named in str(raised.value).rpartition(" remove ")[2].split(" and "):
        shutil.rmtree(named) if Path(named).is_dir() else Path(named).unlink()
    verify._check_store()


def test_what_is_not_a_lost_store_passes(store: Path) -> None:
    """S05. Prevents the check from stopping a first run, or one after `dvc pull` in a fresh clone."""
    shutil.rmtree("mlruns")
    verify.check_files()
    write_retriever("models/retriever", dataset(), 0.5)
    write_json("reports/registration.json", {"model": "rabtriever"})
    verify.check_files()
    verify.check_answer()
    assert not Path("mlruns").exists()


def test_a_stopped_first_run_passes(store: Path) -> None:
    """S05. Prevents a first run that was stopped from making the next one impossible."""
    write_json("reports/data.json", {"hash": dataset().hash})
    with pytest.raises(KeyboardInterrupt), tracking.stage_run("prepare", {}) as run:
        run.log_artifact("reports/data.json")
        raise KeyboardInterrupt
    assert any(Path("mlruns/artifacts").iterdir())
    verify.check_files()
