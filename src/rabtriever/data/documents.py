"""A document of the corpus, and the rules that its line in a corpus file meets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class DataContractError(ValueError):
    """The data break the file format or the data contract; the message says where, and what to do."""


class Document(NamedTuple):
    """A document of the corpus, which is what retrieval ranks.

    Attributes:
        doc_id: Its id, without whitespace.
        title: Its title; may be empty.
        text: Its text; may be empty when there is a title.
        metadata: What else is known of it, as JSON; models do not read it. Not to be changed.
    """

    doc_id: str
    title: str
    text: str
    metadata: Mapping[str, Any] = {}

    @property
    def contents(self) -> str:
        """Title and text as one string, which is what models read.

        >>> Document("d1", "Kettle", "Boils water.").contents
        'Kettle. Boils water.'
        """
        return ". ".join(part for part in (self.title.strip(), self.text.strip()) if part)


def parse_document(row: dict[str, Any], where: str) -> Document:
    """The document of a corpus line.

    Args:
        row: `_id`, `text` and, optional, `title` and `metadata`.
        where: how a message starts: what the row is, such as file and line.

    Raises:
        DataContractError: for a missing or wrongly typed key, or a blank document.
    """
    title = "" if row.get("title") is None else required_string(row, "title", where)
    doc_id, text = checked_id(required_string(row, "_id", where), where), required_string(row, "text", where)
    document = Document(doc_id, title, text, _metadata(row, where))
    if not document.contents:
        raise DataContractError(f"{where}: document {doc_id!r} is blank; give it a text or remove it")
    return document


def document_row(document: Document) -> dict[str, Any]:
    """The corpus line of a document, as `parse_document` takes it; without `metadata` where there are none."""
    row = {"_id": document.doc_id, "title": document.title, "text": document.text}
    return {**row, "metadata": document.metadata} if document.metadata else row


def required_string(row: dict[str, Any], key: str, where: str) -> str:
    """The text under a key of a row.

    Raises:
        DataContractError: it is missing, not a string, or not Unicode text; the message starts with `where`.
    """
    if key not in row:
        found = ", ".join(map(repr, row)) or "none"
        raise DataContractError(f"{where}: there is no key {key!r} (found: {found}); expected '_id' and 'text'; add it")
    value = row[key]
    if not isinstance(value, str):
        raise DataContractError(f"{where}: {key!r} is {value!r}, expected a string; put it in quotes")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataContractError(
            f"{where}: character {error.start} of {key!r} is half a surrogate pair; correct it"
        ) from error
    return value


def checked_id(value: str, where: str) -> str:
    """The id, if run files, readers and metrics can hold it.

    Raises:
        DataContractError: it cannot; the message starts with `where`.
    """
    # Run files separate columns by whitespace, readers drop a byte order mark, and metrics end an id at a NUL.
    if not value or re.search(r"[\s\ufeff\0]", value):
        raise DataContractError(f"{where}: id {value!r} is empty or has whitespace or NUL; rename it in every file")
    return value


def _metadata(row: dict[str, Any], where: str) -> dict[str, Any]:
    value = row.get("metadata")
    if value is not None and not isinstance(value, dict):
        raise DataContractError(f"{where}: 'metadata' is {value!r}, expected an object; write {{\"name\": value, ...}}")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, TypeError, RecursionError) as error:
        raise DataContractError(f"{where}: 'metadata' is not plain JSON ({error}); correct it") from error
    return value or {}
