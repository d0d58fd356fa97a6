"""One text or several."""

from __future__ import annotations

from typing import Any

import pytest

from rabtriever.search.bm25 import Bm25
from rabtriever.search.texts import check_query, one_text, text_list


@pytest.mark.parametrize("texts", ["tea", b"tea", {"q": "tea"}, {"tea"}, None, 3, ["tea", 3], [None]])
def test_what_is_not_a_list_of_texts_is_refused(texts: Any) -> None:
    """A text read as a list of letters, or a mapping as its keys, gives answers to other queries."""
    with pytest.raises(TypeError, match="queries.* is .*, expected a (list of )?text"):
        text_list(texts, "queries")


@pytest.mark.parametrize("texts", [["a", "b"], ("a", "b"), iter(["a", "b"])])
def test_any_ordered_texts_are_taken(texts: Any) -> None:
    """A column or a generator of texts need not be copied by the caller."""
    assert text_list(texts, "queries") == ["a", "b"]


@pytest.mark.parametrize("text", [["tea"], None, b"tea"])
def test_what_is_not_one_text_is_refused(text: Any) -> None:
    """A list where one text is expected is another question."""
    with pytest.raises(TypeError, match="query is .*, expected one text"):
        one_text(text, "query")


@pytest.mark.parametrize("query", ["", " \n", "caf\udce9"])
def test_a_query_that_cannot_be_answered_is_refused(query: str) -> None:
    """An answer to nothing looks like one to something."""
    with pytest.raises(ValueError, match="the query is (blank|.*not Unicode)"):
        check_query(query, "the query")


def test_bm25_takes_lists() -> None:
    """An index over the letters of one document answers every query with nonsense."""
    with pytest.raises(TypeError, match="texts is 'boils water'"):
        Bm25("boils water")
    with pytest.raises(TypeError, match="queries is 'water'"):
        Bm25(["boils water"]).rank("water", 1)
