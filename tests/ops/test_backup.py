"""A project's state in one file: what is in it, and what putting it back may touch."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from rabtriever.core import artifacts
from rabtriever.core.artifacts import ArtifactMismatchError, content_hash
from rabtriever.data.documents import Document
from rabtriever.ops import backup as module
from rabtriever.ops import dvc_stages, registry, tracking
from rabtriever.ops.backup import backup, restore
from rabtriever.ops.lookup import find_retriever
from rabtriever.server.documents import DocumentStore
from tests.ops.test_tracking import register


@pytest.fixture
def saved(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of a project with two versions, which is then in the working folder."""
    for quality in (0.5, 0.6):
        registry.promote(register(quality))
    Path("params.yaml").write_text("prepare: {}\n")
    Path("reports/runs").mkdir(parents=True)
    Path("reports/promotion.json").write_text("{}")
    Path("reports/runs/student.trec").write_text("q Q0 d 1 1.0 x\n")
    file = tmp_path_factory.mktemp("backups") / "one.zip"
    assert backup(file) == len(zipfile.ZipFile(file).namelist()) - 1
    return file


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another, empty working folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(folder)
    return folder


def tree() -> dict[str, str]:
    """Hashes of the visible files in the working folder."""
    paths = [path for path in sorted(Path().rglob("*")) if path.is_file()]
    return {str(path): content_hash(path) for path in paths if not any(part.startswith(".") for part in path.parts)}


def test_a_project_moves_to_another_folder(saved: Path, store: Path, elsewhere: Path) -> None:
    """S06. Prevents a backup that is of no use where the project it was made from is gone."""
    before = {path.relative_to(store): content_hash(path) for path in store.rglob("*") if path.is_file()}
    shutil.rmtree(store)
    restore(saved)
    after = {path.relative_to(elsewhere): content_hash(path) for path in elsewhere.rglob("*") if path.is_file()}
    apart = {Path(name) for name in ("mlruns/mlflow.db", "mlruns/.lock", ".cache/retrain.lock")}
    assert {name: found for name, found in after.items() if name not in apart} == {
        name: found for name, found in before.items() if name not in apart
    }
    assert find_retriever("champion").folder.is_relative_to(elsewhere)
    assert registry.rollback()[0].version == "1"
    assert registry.local_folder(register(0.9)).is_relative_to(elsewhere)
    assert not store.exists(), "nothing is written where the project was"


def test_restoring_refuses_to_replace(saved: Path) -> None:
    """S06. Prevents a backup from replacing newer settings or versions unasked."""
    Path("params.yaml").write_text("prepare: {source: mine}\n")
    Path("mlruns/artifacts/later").mkdir()
    Path("mlruns/artifacts/later/file").write_text("")
    before = tree()
    told = r"mlruns/mlflow\.db, params\.yaml, mlruns/artifacts would be replaced; add --force"
    with pytest.raises(FileExistsError, match=told):
        restore(saved)
    assert tree() == before
    restore(saved, force=True)
    after = tree()
    assert Path("params.yaml").read_text() == "prepare: {}\n" and "mlruns/artifacts/later/file" not in after
    restore_again = {name for name in after if name != "mlruns/mlflow.db"}
    Path("mlruns/mlflow.db").unlink()
    restore(saved)
    assert {name: tree()[name] for name in restore_again} == {name: after[name] for name in restore_again}


def test_a_backup_is_not_replaced_unasked(saved: Path, tmp_path: Path) -> None:
    """S06. Prevents the only good backup from being overwritten, and one that would contain itself."""
    before = content_hash(saved)
    with pytest.raises(FileExistsError, match="add --force to replace it"):
        backup(saved)
    assert content_hash(saved) == before
    backup(saved, force=True)
    for name in ("reports/b.zip", "mlruns/b.zip", "models/retriever/b.zip"):
        with pytest.raises(ValueError, match="which is saved; name a file elsewhere"):
            backup(name)
        assert not Path(name).exists()


def rewritten(saved: Path, **files: str) -> Path:
    """The backup with more files in it."""
    file = saved.with_name("other.zip")
    shutil.copy(saved, file)
    with zipfile.ZipFile(file, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return file


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/tmp/outside",
        "reports/../../outside",
        "reports\\..\\outside",
        "mlruns/.gitignore",
        "mlruns/mlflow.db-wal/x",
        "flows/retrain.py",
        "models/retriever",
        "models/teacher/x",
        "reports/",
        "reports//x",
        "params.yaml",
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_leads_elsewhere_is_refused(saved: Path, elsewhere: Path, name: str) -> None:
    """S06. Prevents a crafted backup from writing outside of what is saved, such as code or a shell's settings."""
    with pytest.raises(ArtifactMismatchError, match="which is not saved; do not trust it"):
        restore(rewritten(saved, **{name: "x"}))
    assert tree() == {} and not (elsewhere.parent / "outside").exists()


def test_a_damaged_backup_changes_nothing(saved: Path, elsewhere: Path) -> None:
    """S06. Prevents half a state from a file that was cut off, changed, or is something else."""
    whole = saved.read_bytes()
    start = whole.index(b"corpus.jsonl") + 40
    damaged = whole[:start] + bytes(byte ^ 255 for byte in whole[start : start + 20]) + whole[start + 20 :]
    for content in (whole[: len(whole) // 2], damaged, b"", b"no zip"):
        saved.write_bytes(content)
        with pytest.raises(ArtifactMismatchError, match="not a whole backup"):
            restore(saved)
        assert tree() == {}
    with pytest.raises(FileNotFoundError, match=r"no file none\.zip"):
        restore("none.zip")
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr(module._NOTE, json.dumps({"format": 2}))
    with pytest.raises(ArtifactMismatchError, match="format 2, expected 1; restore it with the version"):
        restore("other.zip")


def test_a_full_disk_leaves_what_was_there(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S06, S12. Prevents half of a backup in place, or half a backup file, when the disk is full."""
    before = tree()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(artifacts.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            backup(saved.with_name("two.zip"))
        patched.setattr(module.shutil, "copyfileobj", full)
        with pytest.raises(OSError, match="No space left"):
            restore(saved, force=True)
    assert tree() == before and not saved.with_name("two.zip").exists()
    assert not list(Path().rglob(".*.tmp-*"))


def test_neither_disturbs_a_retraining(saved: Path) -> None:
    """S06. Prevents a backup of half-written folders, and one put back under a running retraining."""
    with dvc_stages.exclusive():
        with pytest.raises(BlockingIOError, match="another retraining"):
            backup(saved, force=True)
        with pytest.raises(BlockingIOError, match="another retraining"):
            restore(saved, force=True)


def test_only_the_own_store_is_saved(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S06. Prevents a backup without the versions, where those are on a server."""
    for uri in ("http://127.0.0.1:9", "sqlite:////elsewhere/mlflow.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        for call in (backup, restore):
            with pytest.raises(ValueError, match=f"the store is {uri}, expected mlruns/mlflow.db"):
                call(saved, force=True)


def test_a_store_on_another_disk_is_saved(
    saved: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S06. Prevents a backup without artefacts where their folder is a link."""
    disk = tmp_path_factory.mktemp("disk") / "artifacts"
    shutil.move("mlruns/artifacts", disk)
    Path("mlruns/artifacts").symlink_to(disk)
    file = saved.with_name("linked.zip")
    backup(file)
    names = set(zipfile.ZipFile(saved).namelist())
    assert set(zipfile.ZipFile(file).namelist()) == names and any("artifacts/" in name for name in names)


def test_a_leftover_of_the_old_database_is_not_applied_to_the_new(saved: Path) -> None:
    """S06. Prevents SQLite from rolling the restored database back by the journal of the one before."""
    Path("mlruns/mlflow.db-journal").write_bytes(b"old")
    restore(saved, force=True)
    assert not Path("mlruns/mlflow.db-journal").exists()
    tracking._client.cache_clear()
    assert registry.champion().version == "2"


def test_changed_documents_are_saved_with_the_versions(store: Path, tmp_path: Path, elsewhere: Path) -> None:
    """Prevents a backup without the documents that were added since, and a stale journal that undoes them."""
    os.chdir(store)
    registry.promote(register(0.5))
    DocumentStore().put([Document("mug", "", "holds tea")])
    backup(elsewhere / "one.zip")
    os.chdir(elsewhere)
    assert DocumentStore().changes() == {}
    Path("mlruns").mkdir()
    beside = Path("mlruns/documents.db-journal")
    beside.write_bytes(b"stale")
    restore("one.zip")
    assert DocumentStore().changes() == {"mug": Document("mug", "", "holds tea")} and not beside.exists()
