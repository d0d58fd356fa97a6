"""Documents by id: their rows, whether two are equal, and what to say of one that is not there."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping

from rabtriever.data.documents import Document
from rabtriever.data.look_alikes import LookAlikes

_MOST_COMPARED = 20_000  # ids that are looked through for one that may have been meant


def is_equal(document: Document, other: Document) -> bool:
    """Whether nothing of a document differs, its metadata compared as JSON."""
    if document[:3] != other[:3]:
        return False
    return document.metadata is other.metadata or _as_json(document) == _as_json(other)


def rows_of(documents: Iterable[Document]) -> dict[str, int]:
    """Row of each id."""
    return {document.doc_id: row for row, document in enumerate(documents)}


def unknown_document(doc_id: str, known: Mapping[str, int]) -> ValueError:
    """The error for an id that no document has, with the id that may have been meant.

    Args:
        doc_id: the id.
        known: the ids that there are, with anything.
    """
    compared = known if len(known) <= _MOST_COMPARED else {}
    near, alike = difflib.get_close_matches(doc_id, compared, n=1), LookAlikes(compared).of(doc_id)
    hint = f"; there is {alike}" if alike else f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"no document is {doc_id!r}, expected one of the {len(known):,} in the retriever{hint}")


def _as_json(document: Document) -> str:
    return json.dumps(document.metadata, sort_keys=True)
