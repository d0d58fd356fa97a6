"""The documents that were added, replaced or removed since a version was trained, in one SQLite file.

For each id the last change counts. The changes lie over the corpus of whatever version is in service, so they are kept
apart from all versions. A change is durable when the call returns, also through a kill or a loss of power, and the
changes of one call are seen together or not at all.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from rabtriever.data.documents import Document, document_row, parse_document
from rabtriever.ops import local_store, tracking
from rabtriever.ops.store_errors import meaning_of

FILE = Path("mlruns", local_store.DOCUMENTS)
FORM = 1  # of the tables, in the file's user_version
_PATIENCE = 10.0  # seconds to wait for another process that writes
_TABLES = (
    "create table changes (doc_id text not null primary key, document text, changed_at text not null)",
    "create table counter (value integer not null)",
    "insert into counter values (0)",
    f"pragma user_version = {FORM}",
)


def default_path() -> Path:
    """Where changes are kept: beside the registry's database, or in `mlruns` where the registry is on a server."""
    database = local_store.database(tracking.tracking_uri())
    return FILE if database is None else database.with_name(FILE.name)


class DocumentStore:
    """Changes of documents. Threads and processes may share the file; one of them writes at a time.

    The file is opened for each call: a copy that is put in its place is seen by the next one.

    Args:
        path: The file; it is created by the first change. By default beside the registry's database.
        patience: Seconds to wait while another process writes.

    Every method raises a ConnectionError that says what to do where the file is locked, damaged, of another form, or
    cannot be read or written.
    """

    def __init__(self, path: str | Path | None = None, patience: float = _PATIENCE) -> None:
        self.path, self._patience = Path(path) if path is not None else default_path(), patience

    def __repr__(self) -> str:
        return f"<DocumentStore: {self.path}>"

    def put(self, documents: Iterable[Document]) -> int:
        """Adds documents, or replaces those of the same id: all of them or none.

        Returns:
            The version of the changes, as `version`.

        Raises:
            DataContractError: A document could not stand in a corpus file; none was stored.
        """
        rows = []
        for number, document in enumerate(documents):
            row = document_row(document)
            parse_document(row, f"document {number}")
            rows.append((document.doc_id, json.dumps(row, ensure_ascii=False)))
        return self._write(rows)

    def remove(self, *doc_ids: str) -> int:
        """Removes the documents of some ids, whether there are such or not: all of them or none.

        Returns:
            The version of the changes, as `version`.
        """
        return self._write([(doc_id, None) for doc_id in doc_ids])

    @property
    def version(self) -> int:
        """How many calls have changed anything; 0 where none has. Cheap: nothing else is read."""
        with self._reading() as connection:
            return 0 if connection is None else connection.execute("select value from counter").fetchone()[0]

    def changes(self) -> dict[str, Document | None]:
        """The last change of each id, in the order in which they were made; None where it is a removal."""
        with self._reading() as connection:
            query = "select doc_id, document from changes order by rowid"
            rows = [] if connection is None else connection.execute(query).fetchall()
        return {doc_id: None if text is None else self._parsed(doc_id, text) for doc_id, text in rows}

    def _parsed(self, doc_id: str, text: str) -> Document:
        try:
            document = parse_document(json.loads(text), f"{self.path}: document {doc_id!r}")
        except (ValueError, TypeError, AttributeError) as error:
            raise self._failed(f"document {doc_id!r} is damaged ({error}); put a copy back") from error
        if document.doc_id != doc_id:
            raise self._failed(f"document {doc_id!r} is damaged: it says it is {document.doc_id!r}; put a copy back")
        return document

    def _write(self, rows: list[tuple[str, str | None]]) -> int:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        change = "insert or replace into changes (doc_id, document, changed_at) values (?, ?, ?)"
        with self._opened("rwc") as connection:
            connection.execute("begin immediate")
            if not self._has_tables(connection):
                for statement in _TABLES:
                    connection.execute(statement)
            connection.executemany(change, [(*row, now) for row in rows])
            connection.execute("update counter set value = value + 1")
            version = connection.execute("select value from counter").fetchone()[0]
            connection.execute("commit")
        return version

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that cannot write; None where nothing was stored yet."""
        if not self.path.exists():
            yield None
            return
        with self._opened("rw" if self._was_left() else "ro") as connection:
            yield connection if self._has_tables(connection) else None

    def _was_left(self) -> bool:
        """Whether a writer was killed: whoever opens the file next has to take its half of a change back."""
        return self.path.with_name(f"{self.path.name}-journal").exists()

    @contextlib.contextmanager
    def _opened(self, mode: str) -> Iterator[sqlite3.Connection]:
        if mode == "rwc":
            self.path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{self.path.resolve().as_uri()}?mode={mode}"
        try:
            with contextlib.closing(
                sqlite3.connect(address, uri=True, timeout=self._patience, isolation_level=None)
            ) as connection:
                # the default journal, not a write-ahead log: the file can then be read where nothing can be written;
                # `extra` also syncs the folder, else a loss of power might bring the journal back
                connection.execute("pragma synchronous = extra")
                yield connection
        except sqlite3.Error as error:
            raise self._failed(meaning_of(str(error)) or str(error)) from error

    def _has_tables(self, connection: sqlite3.Connection) -> bool:
        form = connection.execute("pragma user_version").fetchone()[0]
        if form == FORM:
            return True
        if form == 0 and connection.execute("select count(*) from sqlite_master").fetchone()[0] == 0:
            return False
        raise self._failed(f"it is of form {form}, expected {FORM}; name a file of rabtriever add, of this release")

    def _failed(self, what: str) -> ConnectionError:
        return ConnectionError(f"the changed documents in {self.path} failed: {what}")
