"""Which documents a query may be answered with: by id, and by what their metadata say."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rabtriever.data.documents import Document


class Filter(NamedTuple):
    """The documents that are allowed; every condition has to hold.

    Attributes:
        ids: Their ids; None for any. An id that no document has allows nothing.
        fields: For a field of the metadata the values that are allowed. A document without the field is not allowed.
            Where a document has a list in the field, one allowed element is enough.
    """

    ids: frozenset[str] | None = None
    fields: Mapping[str, tuple[Any, ...]] = {}


class FilterIndex:
    """Finds the rows of some documents that a filter allows. A field is read when it is first asked for.

    Args:
        documents: The documents, in row order.
        rows: Row of each id.
    """

    def __init__(self, documents: Sequence[Document], rows: Mapping[str, int]) -> None:
        self._documents, self._rows = documents, rows
        # names come from whoever asks: only those that a document has may be kept
        self._fields: dict[str, dict[Hashable, list[int]] | None] = {
            name: None for document in documents for name in document.metadata
        }

    def allowed(self, wanted: Filter) -> np.ndarray:
        """(N,) whether each document is allowed.

        Raises:
            TypeError: The values of a field are one text, expected several values.
        """
        found = np.full(len(self._documents), wanted.ids is None)
        if wanted.ids is not None:
            found[[self._rows[doc_id] for doc_id in wanted.ids if doc_id in self._rows]] = True
        for name, values in wanted.fields.items():
            found &= self._with(name, values)
        return found

    def _with(self, name: str, values: Sequence[Any]) -> np.ndarray:
        if isinstance(values, (str, bytes)):
            raise TypeError(f"the values of the field {name!r} are {values!r}, expected several; put it in a list")
        found = np.zeros(len(self._documents), dtype=bool)
        if name in self._fields:
            rows = self._field(name)
            for value in values:
                found[rows.get(_key(value), [])] = True
        return found

    def _field(self, name: str) -> dict[Hashable, list[int]]:
        known = self._fields[name]
        if known is None:
            known = {}
            for row, document in enumerate(self._documents):
                if name in document.metadata:
                    for key in _keys(document.metadata[name]):
                        known.setdefault(key, []).append(row)
            self._fields[name] = known
        return known


def _keys(value: Any) -> set[Hashable]:
    """What a filter finds a value by: itself and, for a list, each element."""
    return {_key(value), *(map(_key, value) if isinstance(value, (list, tuple)) else ())}


def _key(value: Any) -> Hashable:
    """A value that can be looked up; 1 and 1.0 are one number, and true is not a number."""
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, sort_keys=True), "nested"
    return value, isinstance(value, bool)
