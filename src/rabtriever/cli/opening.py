"""Opens the retriever that a command names, and says so where it takes longer than a second."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rabtriever.search.explanation import Explanation
    from rabtriever.search.live import LiveRetriever
    from rabtriever.search.retriever import Hit, Retriever

_QUIET_SECONDS = 1.0
# transformers imports these where they are installed, for training alone: most of a second
_NOT_FOR_SEARCHING = ("scipy", "accelerate")


@contextlib.contextmanager
def told_when_slow(message: str, seconds: float = _QUIET_SECONDS) -> Iterator[None]:
    """Prints a message on stderr unless the block has ended before."""
    timer = threading.Timer(seconds, lambda: print(message, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def fast_imports() -> Iterator[None]:
    """Imports take a quarter less time meanwhile.

    No garbage is collected, and libraries are imported as in a base install: without optional ones that searching does
    not use.
    """
    collects = gc.isenabled()
    hidden = [name for name in _NOT_FOR_SEARCHING if name not in sys.modules]
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # None: importing it fails
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        if collects:
            gc.enable()


def open_retriever(name: str) -> Retriever:
    """The retriever of a name; the code that is installed answers.

    Raises:
        FileNotFoundError, ValueError, ArtifactMismatchError: as of `rabtriever.Retriever.load`.
    """
    from rabtriever.core.artifacts import read_manifest
    from rabtriever.ops.lookup import find_retriever

    with told_when_slow(f"loading the retriever {name}; this takes some seconds"), fast_imports():
        found = find_retriever(name)
        read_manifest(found.folder, "retriever", verify=False)  # a wrong folder is told before the seconds of loading
        if found.note:
            print(found.note, file=sys.stderr)
        from rabtriever.search.retriever import Retriever

        retriever = Retriever.load(found.folder)
    retriever.version = found.version
    return retriever


class _Changed:
    """A retriever with changed documents, asked as one without."""

    def __init__(self, live: LiveRetriever) -> None:
        self._live = live

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        from rabtriever.search.live import Query

        return self._live.search([Query(query, k) for query in queries])

    def explain(self, query: str, doc_id: str) -> Explanation:
        return self._live.explain(query, doc_id)


def open_with_changes(name: str) -> Retriever | _Changed:
    """The retriever of a name; over a version of the registry lie the documents that were added or removed since.

    Raises:
        ConnectionError: the file of the changes cannot be read.
        FileNotFoundError, ValueError, ArtifactMismatchError: as of `open_retriever`.
    """
    retriever = open_retriever(name)
    if retriever.version is None:  # a folder is asked as it is
        return retriever
    from rabtriever.server.documents import DocumentStore

    store = DocumentStore()
    changes = store.changes()
    if not changes:
        return retriever
    from rabtriever.search.live import LiveRetriever

    with told_when_slow(f"encoding the documents of {store.path}"):
        live = LiveRetriever.of(retriever, changes)
    if live.changes:
        print(f"with {len(live.changes):,} changed documents of {store.path}", file=sys.stderr)
    return _Changed(live)
