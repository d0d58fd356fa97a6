"""Which version should be in service, and how it is opened and asked before it takes over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.data.beir_io import Document
from rabtriever.ops.examples import EXAMPLE
from rabtriever.ops.lookup import Found, find_retriever
from rabtriever.search.live import Changes, LiveRetriever, Query
from rabtriever.server.documents import DocumentStore
from rabtriever.server.settings import ServeSettings


class Wanted(NamedTuple):
    """What should be in service.

    Attributes:
        found: where it is.
        hash: identity of its files, as its manifest says.
    """

    found: Found
    hash: str


class Store(Protocol):
    """Keeps changes of documents, durably."""

    @property
    def version(self) -> int:
        """How many calls have changed anything."""

    def put(self, documents: Sequence[Document]) -> int:
        """Adds or replaces documents; returns the version."""

    def remove(self, doc_id: str) -> int:
        """Removes a document; returns the version."""

    def changes(self) -> dict[str, Document | None]:
        """The last change of each document; None where that was its removal."""


class Kept(NamedTuple):
    """What a store holds: its version, and the last change of each document."""

    version: int
    changes: dict[str, Document | None]


def look_up(name: str) -> Wanted:
    """What a name means now; none of its large files is read.

    Raises:
        FileNotFoundError, ValueError, ArtifactMismatchError, ModuleNotFoundError: as of `find_retriever`.
    """
    found = find_retriever(name)
    return Wanted(found, read_manifest(found.folder, "retriever", verify=False).hash)


def store_of(settings: ServeSettings) -> DocumentStore | None:
    """Where changes of documents are kept: in the file that was named, else beside the registry.

    None for a plain folder where no file was named: the changes beside the registry are of its versions.

    Raises:
        FileNotFoundError, ValueError, ArtifactMismatchError, ModuleNotFoundError: as of `find_retriever`.
    """
    if settings.documents is not None:
        return DocumentStore(settings.documents)
    return DocumentStore() if find_retriever(settings.model).version is not None else None


def open_version(wanted: Wanted, changes: Changes) -> LiveRetriever:
    """Opens a version after verifying every file of it, lays the changes over it, and asks it a question.

    Raises:
        FileNotFoundError: it has lost its files.
        ArtifactMismatchError: it is damaged, or does not answer.
    """
    from rabtriever.search.retriever import Retriever

    retriever = Retriever.load(wanted.found.folder)
    retriever.version = wanted.found.version
    live = LiveRetriever.of(retriever, changes)
    check_answers(live)
    return live


def check_answers(live: LiveRetriever) -> None:
    """Asks a retriever a question.

    Raises:
        ArtifactMismatchError: it has documents, and finds none or gives one a score that is not finite.
    """
    (hits,) = live.search([Query(EXAMPLE, 1)])
    if len(live) and not (hits and math.isfinite(hits[0].score)):
        found = f"the score {hits[0].score}" if hits else "nothing"
        raise ArtifactMismatchError(f"the version answers with {found}, expected a document; register it again")


def difference(before: Changes, now: Changes) -> dict[str, Document | None]:
    """What is in `now` and not, or otherwise, in `before`."""
    return {name: document for name, document in now.items() if name not in before or before[name] != document}
