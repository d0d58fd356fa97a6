"""What goes wrong with a store, in words."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import threading
from pathlib import Path

import pytest

from rabtriever.ops import lookup, registry, tracking
from rabtriever.ops.store_errors import BRIEFLY, brief_waits, store_errors_of


def _readonly(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("create table t (a)")


def _locked(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as holder:
        holder.execute("begin exclusive")
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("create table t (a)")


def _damaged(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (a)")


def _full(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma max_page_count = 1")
        connection.execute("create table t (a)")


@pytest.mark.parametrize(
    ("fail", "told"),
    [
        (_readonly, "it cannot be written; give yourself the right"),
        (_locked, "another process keeps it locked; wait for its end"),
        (_damaged, "it is not a database, or damaged; put a copy back"),
        (_full, "the disk is full; make room"),
    ],
)
@pytest.mark.parametrize("of_mlflow", [True, False])
def test_what_a_database_says_is_told_in_words(tmp_path: Path, fail, told: str, of_mlflow: bool) -> None:
    """S12. Prevents SQL text for a store that is read-only, locked, damaged or on a full disk."""
    from mlflow.exceptions import MlflowException

    path = tmp_path / "mlflow.db"
    path.write_bytes(b"")
    expected = pytest.raises(ConnectionError, match=f"^the store sqlite:///x failed: {told}")
    with expected, store_errors_of(lambda: "sqlite:///x"):
        try:
            fail(path)
        except sqlite3.Error as error:
            if not of_mlflow:
                raise
            said = f"(sqlite3.OperationalError) {error}\n[SQL: INSERT INTO runs (run_uuid) VALUES (?)]"
            raise MlflowException(said) from error


def test_no_sql_is_shown(tmp_path: Path) -> None:
    """S12. Prevents pages of SQL for an error of the database that has no words of its own here."""
    from mlflow.exceptions import MlflowException

    with pytest.raises(ConnectionError) as raised, store_errors_of(lambda: "sqlite:///x"):
        raise MlflowException("no such table: runs\n[SQL: SELECT * FROM runs]\n(Background on this error)")
    assert str(raised.value) == "MLflow, with the store sqlite:///x, failed: no such table: runs"


def test_a_file_that_is_no_store_is_told_at_once(store: Path) -> None:
    """S12. Prevents minutes in which MLflow tries again and again to open what is not a database."""
    Path("mlruns/mlflow.db").write_bytes(b"not a database" * 100)
    for call in (registry.versions, lambda: lookup.find_retriever("champion")):
        with pytest.raises(ConnectionError, match="not a database, or damaged; put a copy back"):
            call()


@pytest.fixture
def silent_server() -> tuple[str, list[int]]:
    """Address of a server that hangs up on each caller, and the calls it got."""
    calls: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    calls.append(1)

        threading.Thread(target=answer, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


def test_a_server_that_does_not_answer_is_told(
    silent_server: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """O47. Prevents minutes of silence: MLflow's client would ask eight times, waiting longer each time."""
    uri, calls = silent_server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in BRIEFLY:
        monkeypatch.delenv(name, raising=False)
    told = pytest.raises(ConnectionError, match=f"the server {uri} does not answer; see that the address")
    with told, tracking.store_errors():
        registry.versions()
    assert len(calls) == 2
    assert not BRIEFLY.keys() & os.environ.keys()


def test_what_the_environment_says_on_waiting_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """O47. Prevents a slow server from being given up on although the user has asked for patience."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with brief_waits():
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
