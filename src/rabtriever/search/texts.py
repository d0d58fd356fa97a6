"""One text or several: what a caller gave, told apart before a text can be taken for a list of letters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any


def text_list(texts: Iterable[str], name: str) -> list[str]:
    """The texts as a list.

    Args:
        texts: a list, a tuple, a column, or another iterable of texts with an order.
        name: what the caller's argument is called.

    Raises:
        TypeError: it is one text, a mapping or a set, or holds something that is not a text.

    >>> text_list(("tea", "coffee"), "queries")
    ['tea', 'coffee']
    """
    if isinstance(texts, (str, bytes, Mapping, Set)) or not isinstance(texts, Iterable):
        advice = "put it in a list" if isinstance(texts, (str, bytes)) else "give a list"
        raise TypeError(f"{name} is {_shown(texts)}, expected a list of texts; {advice}")
    found = list(texts)
    for number, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{number}] is {_shown(text)}, expected a text")
    return found


def one_text(text: str, name: str) -> str:
    """The text.

    Raises:
        TypeError: it is a list or something else.
    """
    if not isinstance(text, str):
        raise TypeError(f"{name} is {_shown(text)}, expected one text")
    return text


def check_query(query: str, name: str) -> None:
    """Makes sure that a query can be answered.

    Raises:
        ValueError: it is blank, or not Unicode text.
    """
    if not query.strip():
        raise ValueError(f"{name} is blank; write what is wanted")
    check_unicode(query, name)


def check_unicode(text: str, name: str) -> None:
    """Makes sure that a text can be encoded.

    Raises:
        ValueError: it is not Unicode text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name} is {text!r}, which is not Unicode text; give it in UTF-8") from error


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"
