"""The store in a file: moved, copied, read without rights, in a folder of an odd name."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from filelock import FileLock

from rabtriever.core.artifacts import content_hash
from rabtriever.ops import local_store, registry, tracking
from rabtriever.ops.lookup import find_retriever
from tests.ops.test_tracking import register

DATABASE = Path("mlruns/mlflow.db")


def execute(words: str) -> None:
    """Changes the database in the working folder."""
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        connection.execute(words)
        connection.commit()


def addresses() -> set[str]:
    """All addresses of artefacts in the database in the working folder."""
    with contextlib.closing(sqlite3.connect(DATABASE)) as connection:
        found = [connection.execute(f"select {column} from {table}") for table, column in local_store._ADDRESSES]
        return {row[0] for rows in found for row in rows if row[0]}


@pytest.fixture
def two_versions(store: Path) -> Path:
    """A project with two versions: the first is previous, the second the champion."""
    for quality in (0.5, 0.6):
        registry.promote(register(quality))
    return store


@pytest.mark.parametrize("noted", [True, False], ids=["0.3", "0.2"])
@pytest.mark.parametrize("original", ["stays", "goes"])
def test_a_copied_checkout_stands_alone(
    two_versions: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    noted: bool,
    original: str,
) -> None:
    """S06. Prevents a copy that reads and writes the artefacts of the checkout it was made from, or finds none."""
    if not noted:  # as version 0.2 left it
        execute("delete from experiment_tags")
    copy = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(two_versions, copy)
    before = content_hash(two_versions)
    if original == "goes":
        shutil.rmtree(two_versions / "mlruns")
    monkeypatch.chdir(copy)
    for name in ("champion", "previous"):
        found = find_retriever(name).folder
        assert found.is_relative_to(copy) and found.is_dir()
    assert registry.rollback()[0].version == "1"
    assert registry.local_folder(register(0.9)).is_relative_to(copy)
    assert all(address.startswith(f"{copy.as_uri()}/") for address in addresses() if "/artifacts" in address)
    assert original == "goes" or content_hash(two_versions) == before
    assert (two_versions / "mlruns").exists() == (original == "stays")


def test_addresses_elsewhere_stay(two_versions: Path) -> None:
    """S06. Prevents a rewrite of artefacts that were put on another disk, or in a folder whose name begins alike."""
    moved = two_versions.as_uri()
    others = {"file:///disk/artifacts", f"{moved}/mlruns2/artifacts", "mlflow-artifacts:/7", f"{moved}/mlruns"}
    for uri in others:
        tracking.client().create_experiment(f"at {uri}".replace("/", " "))
        execute(f"update experiments set artifact_location = '{uri}' where name = '{f'at {uri}'.replace('/', ' ')}'")
    execute(f"update experiment_tags set value = 'file:///old/mlruns' where key = '{local_store.ROOT_TAG}'")
    execute("update model_versions set source = 'file:///old/mlruns/artifacts/1', storage_location = '/old/mlruns/2'")
    assert local_store.relocate(DATABASE.resolve(), tracking.EXPERIMENT)
    assert not local_store.relocate(DATABASE.resolve(), tracking.EXPERIMENT)
    found = addresses()
    assert others <= found
    assert {f"{moved}/mlruns/artifacts/1", f"{two_versions}/mlruns/2"} <= found
    assert not any("/old/" in address for address in found)


def test_an_old_store_with_artefacts_elsewhere_stays(two_versions: Path) -> None:
    """S06. Prevents a guess at where a store was from moving artefacts that lie elsewhere on purpose."""
    execute("delete from experiment_tags")
    for location in ("file:///disk/artifacts", "file:///disk/mlruns/models", "s3://bucket/mlruns/artifacts", ""):
        execute(f"update experiments set artifact_location = '{location}' where name = 'rabtriever'")
        assert not local_store.relocate(DATABASE.resolve(), tracking.EXPERIMENT)
    execute("update experiments set artifact_location = 'file:///old/mlruns/artifacts' where name = 'rabtriever'")
    shutil.rmtree("mlruns/artifacts")
    assert not local_store.relocate(DATABASE.resolve(), tracking.EXPERIMENT), "the database was moved alone"


def test_a_moved_store_that_cannot_be_written_is_read(
    two_versions: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """O48, S06. Prevents a copy on a disk without write rights from being useless, or from reading the original."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(two_versions, copy)
    before = content_hash(copy / "mlruns")
    monkeypatch.chdir(copy)
    monkeypatch.setattr(local_store, "is_read_only", lambda path: True)
    assert find_retriever("champion").folder.is_relative_to(copy)
    recorded = tracking.client().get_run(registry.champion().run_id).info.artifact_uri
    assert recorded.startswith(two_versions.as_uri())
    assert tracking.artifact_path(recorded).is_relative_to(copy) and tracking.artifact_path(recorded).is_dir()
    assert content_hash(copy / "mlruns") == before


def test_reading_takes_no_lock(two_versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """O48. Prevents "Permission denied: mlruns/.lock" for who may read, and waiting for a process that holds it."""
    tracking._client.cache_clear()
    monkeypatch.setattr(local_store, "_PATIENCE", 0.1)
    with FileLock("mlruns/.lock"):
        assert find_retriever("champion").version == "2"
        assert [version.version for version in registry.versions()] == ["2", "1"]
        execute("delete from experiment_tags")
        tracking._client.cache_clear()
        with pytest.raises(BlockingIOError, match=r"another process holds .*\.lock; wait for its end"):
            registry.versions()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """O48, S12. Prevents a bare errno where a store cannot be created."""
    (tmp_path / "file").write_text("")
    told = pytest.raises(PermissionError, match="cannot be created or changed in .*give yourself the right")
    with told, local_store.locked(tmp_path / "file" / "mlruns" / "mlflow.db"):
        pass


@pytest.mark.parametrize("name", ["100 % sure", "what?", "50%25"])
def test_a_path_that_no_address_can_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """P17. Prevents "invalid interpolation syntax", or a database in another place than the one shown."""
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for call in (tracking.tracking_uri, tracking.require, tracking.client):
        with pytest.raises(ValueError, match="cannot hold '[%?]'; rename that folder, or set MLFLOW_TRACKING_URI"):
            call()
    assert not list((tmp_path / name).iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking.tracking_uri() == "http://127.0.0.1:9", "a store elsewhere is the way out"


def test_the_store_opens_on_runs_and_models(store: Path) -> None:
    """S11. Prevents `make ui` from opening on an empty page about traces, also with a store of version 0.2."""
    kind = {"mlflow.experimentKind": "custom_model_development"}
    assert kind.items() <= tracking.client().get_experiment_by_name("rabtriever").tags.items()
    execute("delete from experiment_tags")
    tracking._client.cache_clear()
    assert kind.items() <= tracking.client().get_experiment_by_name("rabtriever").tags.items()


def test_a_path_that_an_address_can_hold_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P17. Prevents a refusal of folders such as `C#`, and artefacts that are written beside them."""
    folder = tmp_path / "C# & ü"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("file").write_text("x")
    with tracking.stage_run("prepare", {}) as run:
        run.log_artifact("file")
    assert (folder / "mlruns/artifacts" / run.run_id / "artifacts/file").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {folder.name}
