"""What one request may ask for, by the settings of the server."""

from __future__ import annotations

from rabtriever.server.errors import ApiError
from rabtriever.server.schemas import PutRequest, RerankRequest, SearchRequest
from rabtriever.server.settings import ServeSettings


def check_search(request: SearchRequest, settings: ServeSettings) -> list[str]:
    """The queries of a request.

    Raises:
        ApiError: 422, there are too many, one is too long, or too many documents are asked for.
    """
    queries = [request.query] if request.query is not None else list(request.queries or ())
    _at_most(len(queries), settings.queries, "queries", "send several requests")
    for query in queries:
        _at_most(len(query), settings.query_characters, "characters in a query", "shorten it")
    _at_most(request.k, settings.k, "documents wanted (k)", "ask for fewer")
    return queries


def check_rerank(request: RerankRequest, settings: ServeSettings) -> None:
    """Makes sure that a request is within the limits.

    Raises:
        ApiError: 422, the query is too long or there are too many documents.
    """
    _at_most(len(request.query), settings.query_characters, "characters in a query", "shorten it")
    _at_most(len(request.documents), settings.rerank_documents, "documents", "send several requests")


def check_put(request: PutRequest, settings: ServeSettings) -> None:
    """Makes sure that a request is within the limits, and that its ids are different.

    Raises:
        ApiError: 422, there are too many documents, or an id repeats.
    """
    _at_most(len(request.documents), settings.change_documents, "documents", "send several requests")
    seen: set[str] = set()
    for document in request.documents:
        if document.id in seen:
            raise ApiError(422, f"the id {document.id!r} is there twice, expected different ids; send one of them")
        seen.add(document.id)


def _at_most(found: int, most: int, what: str, advice: str) -> None:
    if found > most:
        raise ApiError(422, f"the request has {found:,} {what}, expected at most {most:,}; {advice}")
