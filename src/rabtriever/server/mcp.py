"""The MCP door: an agent's tools `search` and `rerank` over the backend, on the official SDK.

Mounted at /mcp by `app.py` (streamable HTTP), and run by `rabtriever mcp` over standard input and output.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Annotated, Any
from urllib.parse import urlsplit

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from pydantic import Field, ValidationError
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import rabtriever
from rabtriever.server import schemas
from rabtriever.server.backend import Backend
from rabtriever.server.errors import ApiError, told
from rabtriever.server.settings import ServeSettings

PATH = "/mcp"
_INSTRUCTIONS = (
    "A corpus of documents, such as tools, articles or rules, of which some help with a query. `search` finds them by "
    "what they are good for, not by the words they share with the query. `rerank` orders texts that you have already."
)
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
_QUERY = Field(description="What is wanted, in the user's own words; a situation or a goal will do.", min_length=1)


def mcp_server(backend: Backend) -> MCPServer[Any]:
    """The tools, over a backend that somebody else starts and stops."""
    server: MCPServer[Any] = MCPServer(
        "rabtriever",
        title="rabtriever",
        version=rabtriever.__version__,
        instructions=_INSTRUCTIONS,
        log_level="WARNING",
    )
    tools = _Tools(backend)
    for title, tool in (("Find documents", tools.search), ("Order texts", tools.rerank)):
        server.tool(title=title, description=inspect.getdoc(tool), annotations=_READS)(tool)
    return server


def routes(
    backend: Backend, settings: ServeSettings
) -> tuple[list[BaseRoute], Callable[[], contextlib.AbstractAsyncContextManager[None]]]:
    """What an app needs to answer at /mcp, behind its own checks of host, token and size.

    Returns:
        the routes, and what has to run as long as the app does.
    """
    server = mcp_server(backend)
    inside = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=settings.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # the app checks the host
    )
    found: list[BaseRoute] = [
        Route(route.path, _OwnOrigin(route.endpoint, settings.cors_origins))
        for route in inside.routes
        if isinstance(route, Route)
    ]
    return found, server.session_manager.run


class _Tools:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def search(
        self,
        query: Annotated[str, _QUERY],
        k: Annotated[int, Field(description="Number of documents wanted.", ge=1)] = 5,
        fields: Annotated[
            dict[str, list[schemas.Scalar]] | None,
            Field(description='Values that metadata fields of a document may have, such as {"language": ["en"]}.'),
        ] = None,
        threshold: Annotated[
            float | None,
            Field(description="Leaves out documents whose relevance_score, a probability, is lower.", ge=0, le=1),
        ] = None,
    ) -> schemas.SearchResult:
        """Finds the documents of the corpus that help with a query, best first.

        Where low_confidence is true, probably no document helps.
        """
        with _faults_told():
            allowed = schemas.Filter(fields=fields) if fields else None
            asked = schemas.SearchRequest(query=query, k=k, filter=allowed, threshold=threshold)
            found = await self._backend.search(asked)
        assert isinstance(found, schemas.SearchResult)  # one query has one result
        return found

    async def rerank(
        self,
        query: Annotated[str, _QUERY],
        documents: Annotated[list[str], Field(description="The texts to order.", min_length=1)],
        top_n: Annotated[int | None, Field(description="Number of texts wanted; all by default.", ge=1)] = None,
    ) -> schemas.RerankResponse:
        """Orders texts by how much each helps with a query, best first; index is a text's place in documents."""
        with _faults_told():
            return await self._backend.rerank(schemas.RerankRequest(query=query, documents=[*documents], top_n=top_n))


@contextlib.contextmanager
def _faults_told() -> Iterator[None]:
    """Gives an agent the message of a refused request, which it can act on; other errors stay hidden from it."""
    try:
        yield
    except ApiError as error:
        raise ToolError(error.message) from error
    except ValidationError as error:
        raise ToolError(told(error.errors())) from error


class _OwnOrigin:
    """Refuses requests that a page of another site sends through a user's browser, as MCP demands."""

    def __init__(self, app: ASGIApp, allowed: tuple[str, ...]) -> None:
        self._app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin and origin not in self._allowed and urlsplit(origin).netloc != headers.get("host"):
            raise ApiError(
                403,
                f"the header Origin is {ascii(origin)[:80]}, expected none or this server; start with --cors-origin",
            )
        await self._app(scope, receive, send)
