"""Which version should be in service, and how it is opened and asked before it takes over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.data.beir_io import Document
from rabtriever.ops.examples import EXAMPLE
from rabtriever.ops.lookup import Found, find_retriever
from rabtriever.search.live import LiveRetriever, Query

Changes = Mapping[str, Document | None]  # what was put, by id; None for what was removed


class Wanted(NamedTuple):
    """What should be in service.

    Attributes:
        found: where it is.
        hash: identity of its files, as its manifest says.
    """

    found: Found
    hash: str


def look_up(name: str) -> Wanted:
    """What a name means now; none of its large files is read.

    Raises:
        FileNotFoundError, ValueError, ArtifactMismatchError, ModuleNotFoundError: as of `find_retriever`.
    """
    found = find_retriever(name)
    return Wanted(found, read_manifest(found.folder, "retriever", verify=False).hash)


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
