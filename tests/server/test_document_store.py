"""Changed documents on disk: what was acknowledged is there, and a change is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rabtriever.data.documents import DataContractError, Document
from rabtriever.server import documents
from rabtriever.server.documents import DocumentStore, default_path

KETTLE = Document("kettle", "Kettle", "boils water ☕", {"room": "kitchen", "tags": ["hot", None]})
MUG = Document("mug", "", "holds tea")
# puts batches of a hundred documents, and says the number of each once it is stored
WRITER = """
import os, signal, sys
from rabtriever.data.documents import Document
from rabtriever.server.documents import DocumentStore
path, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = DocumentStore(path)
for number in range(first, last):
    store.put(Document(f"{number}-{part}", "", f"text {number}") for part in range(100))
    os.write(1, f"{number}\\n".encode())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def store(tmp_path: Path) -> DocumentStore:
    """A store without a file yet."""
    return DocumentStore(tmp_path / "mlruns/documents.db", patience=0.1)


def test_the_last_change_of_each_document_counts(store: DocumentStore):
    """A document that was replaced or removed comes back, or the order of changes is lost."""
    assert store.changes() == {} and store.version == 0 and not store.path.exists(), "reading creates nothing"
    assert store.put([KETTLE, MUG]) == 1
    assert store.remove("kettle", "ladder") == 2
    assert store.put([MUG._replace(text="holds cocoa")]) == 3 == store.version
    again = DocumentStore(store.path)
    assert again.changes() == {"kettle": None, "ladder": None, "mug": MUG._replace(text="holds cocoa")}
    assert list(again.changes()) == ["kettle", "ladder", "mug"]
    again.put([KETTLE])
    assert list(store.changes()) == ["ladder", "mug", "kettle"] and store.changes()["kettle"] == KETTLE


def test_a_batch_with_a_fault_leaves_nothing(store: DocumentStore):
    """Half of a batch is stored, and the server answers that it was refused."""
    store.put([MUG])
    for wrong, told in (
        (Document("a b", "", "x"), "document 1: id 'a b' is empty or has whitespace"),
        (Document("a", "", " "), "document 1: document 'a' is blank"),
        (Document("a", "", "x", {"price": float("nan")}), "document 1: 'metadata' is not plain JSON"),
        (Document("a", "", "\ud800"), "document 1: character 0 of 'text' is half a surrogate pair"),
    ):
        with pytest.raises(DataContractError, match=told):
            store.put([KETTLE, wrong])
    with pytest.raises(ConnectionError):
        store.remove("kettle", object())  # type: ignore[arg-type] - SQLite refuses it within the transaction
    assert store.changes() == {"mug": MUG} and store.version == 1


def test_nothing_acknowledged_is_lost_by_a_kill(store: DocumentStore):
    """A kill right after the answer loses the document, or leaves half of a batch."""
    acknowledged: set[int] = set()
    for round_ in range(10):
        first = 1000 * round_
        last = first + 3 if round_ % 2 else first + 1000  # kills itself right after an answer, or is killed at work
        child = subprocess.Popen([sys.executable, "-c", WRITER, store.path, str(first), str(last)], stdout=-1)
        with child:
            for line in child.stdout:
                acknowledged.add(int(line))
                if int(line) == first + round_:
                    child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
        found = DocumentStore(store.path).changes()
        stored = {int(doc_id.partition("-")[0]) for doc_id in found}
        assert acknowledged <= stored, "an acknowledged batch is lost"
        assert set(found) == {f"{number}-{part}" for number in stored for part in range(100)}, "half of a batch"
        assert store.version == len(stored)
    assert len(acknowledged) >= 5 * 3 + 5


def test_writers_take_turns(tmp_path: Path):
    """Two writers at once lose each other's changes, or one of them fails."""
    path, faults = tmp_path / "documents.db", []

    def write(name: str) -> None:
        try:
            for number in range(15):
                DocumentStore(path, patience=60).put([Document(f"{name}{number}", "", "x")])
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=write, args=name) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == [] and len(DocumentStore(path).changes()) == DocumentStore(path).version == 45


def test_a_copy_put_back_is_seen(store: DocumentStore, tmp_path: Path):
    """Changes go into a deleted file after a backup was restored."""
    store.put([MUG])
    copy = store.path.read_bytes()
    store.put([KETTLE])
    (tmp_path / "copy").write_bytes(copy)
    os.replace(tmp_path / "copy", store.path)
    assert store.changes() == {"mug": MUG}
    assert store.put([KETTLE]) == 2 and set(DocumentStore(store.path).changes()) == {"mug", "kettle"}


def _locked(path: Path, cleanup: contextlib.ExitStack) -> None:
    holder = cleanup.enter_context(contextlib.closing(sqlite3.connect(path)))
    holder.execute("begin exclusive")


def _read_only(path: Path, cleanup: contextlib.ExitStack) -> None:
    patch, connect = cleanup.enter_context(pytest.MonkeyPatch.context()), sqlite3.connect
    patch.setattr(sqlite3, "connect", lambda address, **how: connect(address.replace("=rwc", "=ro"), **how))


def _damaged(path: Path, cleanup: contextlib.ExitStack) -> None:
    path.write_bytes(b"not a database" * 1000)


def _torn(path: Path, cleanup: contextlib.ExitStack) -> None:
    path.write_bytes(path.read_bytes()[:4096])


def _foreign(path: Path, cleanup: contextlib.ExitStack) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("create table experiments (a)")


def _newer(path: Path, cleanup: contextlib.ExitStack) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("pragma user_version = 2")


@pytest.mark.parametrize(
    ("fault", "told", "reads"),
    [
        (_locked, "another process keeps it locked; wait for its end or stop it", False),
        (_read_only, "it cannot be written; give yourself the right", True),
        (_damaged, "it is not a database, or damaged; put a copy back", False),
        (_torn, "it is damaged; put a copy back", False),
        (_foreign, "it is of form 0, expected 1; name a file of rabtriever add", False),
        (_newer, "it is of form 2, expected 1", False),
    ],
)
def test_what_is_wrong_with_the_file_is_told(store: DocumentStore, fault, told: str, reads: bool):
    """A search without the changed documents, or a traceback of SQLite, for a file that cannot be used."""
    store.put([MUG])
    with contextlib.ExitStack() as cleanup:
        fault(store.path, cleanup)
        message = f"^the changed documents in {store.path} failed: {told}"
        with pytest.raises(ConnectionError, match=message):
            store.put([KETTLE])
        if reads:
            assert store.changes() == {"mug": MUG} and store.version == 1
            return
        with pytest.raises(ConnectionError, match=message):
            store.changes()


@pytest.mark.parametrize("text", ["{", "[]", '{"_id": "cup", "text": "x"}', '{"_id": "mug"}'])
def test_a_damaged_document_is_told(store: DocumentStore, text: str):
    """A document is left out, or another one shown in its place."""
    store.put([MUG])
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        other.execute("update changes set document = ?", (text,))
        other.commit()
    with pytest.raises(ConnectionError, match="document 'mug' is damaged .*put a copy back|'mug' is damaged: it says"):
        store.changes()


def test_an_empty_file_has_no_changes(store: DocumentStore):
    """A writer that was killed before its first change leaves a file that nobody can read."""
    store.path.parent.mkdir()
    store.path.touch()
    assert store.changes() == {} and store.version == 0
    assert store.put([MUG]) == 1


def test_changes_lie_beside_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A command and the server keep changes in different files."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/registry/mlflow.db")
    assert default_path() == tmp_path / "registry/documents.db" == DocumentStore().path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert default_path() == documents.FILE == Path("mlruns/documents.db")
