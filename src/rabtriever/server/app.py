"""The web application: routes over a backend."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.responses import HTMLResponse
from starlette.middleware.cors import CORSMiddleware

import rabtriever
from rabtriever.server import limits, schemas
from rabtriever.server.access import Access, may_write
from rabtriever.server.backend import Backend
from rabtriever.server.errors import add_handlers
from rabtriever.server.middleware import REQUEST_ID, RequestMiddleware
from rabtriever.server.reference import docs_page
from rabtriever.server.settings import ServeSettings

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NO_SCRIPTS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
_DESCRIPTION = "Finds the documents that help with a query, and says how sure it is."


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": schemas.ErrorResponse} for status in statuses}


_REFUSED = _errors(400, 401, 403, 413, 422, 429, 503, 504)


def create_app(backend: Backend, settings: ServeSettings) -> FastAPI:
    """The application; it starts and stops the backend with itself.

    Args:
        backend: what answers.
        settings: of the server.

    Returns:
        the app; its `state` has `backend`, `settings` and `access`.
    """
    app = FastAPI(
        title="rabtriever",
        version=rabtriever.__version__,
        description=_DESCRIPTION,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.backend, app.state.settings = backend, settings
    app.state.access = Access(settings.tokens, settings.loopback)
    app.state.lifespans = []
    add_handlers(app)
    _add_questions(app, backend)
    _add_documents(app, backend)
    _add_operations(app, backend)
    _mount_page(app, backend, settings)
    _mount_mcp(app, backend, settings)
    app.add_middleware(RequestMiddleware, settings=settings, access=app.state.access, metrics=backend.metrics)
    if settings.cors_origins:  # the outermost: a browser asks for permission without a token
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Mcp-Protocol-Version", REQUEST_ID],
            expose_headers=[REQUEST_ID],
        )
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        await app.state.backend.start()
        stack.push_async_callback(app.state.backend.stop)
        for lifespan in app.state.lifespans:
            await stack.enter_async_context(lifespan())
        yield


def _add_questions(app: FastAPI, backend: Backend) -> None:
    @app.post("/v1/search", tags=["ask"], summary="Find documents", responses=_REFUSED)
    async def search(asked: schemas.SearchRequest, request: Request) -> schemas.SearchResult | schemas.SearchResults:
        """Finds the documents that help with one query, or with each of several.

        `relevance_score` is a calibrated probability. `low_confidence` says that probably no document helps.
        """
        _note(request, [asked.query] if asked.query is not None else asked.queries or [])
        return await backend.search(asked)

    @app.post(
        "/v1/rerank",
        tags=["ask"],
        summary="Order given documents",
        responses=_REFUSED,
        response_model_exclude_none=True,
    )
    async def rerank(asked: schemas.RerankRequest, request: Request) -> schemas.RerankResponse:
        """Orders texts, or documents of the corpus, by their relevance for a query.

        The form is the one of Jina and Cohere, which vLLM, TEI, LibreChat, Dify and RAGFlow speak.
        """
        _note(request, [asked.query])
        return await backend.rerank(asked, request.scope["request_id"])

    def _note(request: Request, queries: list[str]) -> None:
        request.scope["notes"]["queries"] = queries if backend.settings.log_queries else len(queries)


def _add_documents(app: FastAPI, backend: Backend) -> None:
    @app.post(
        "/v1/documents",
        tags=["documents"],
        summary="Add or replace documents",
        responses=_REFUSED,
        dependencies=[Depends(may_write)],
    )
    async def put_documents(asked: schemas.PutRequest) -> schemas.ChangeResponse:
        """Adds documents, or replaces those with the same ids; all of them or none.

        When the answer comes, they are on disk, and every later search finds them.
        """
        limits.check_put(asked, backend.settings)
        return await backend.put([one.document() for one in asked.documents])

    @app.delete(
        "/v1/documents/{id}",
        tags=["documents"],
        summary="Remove a document",
        responses={**_REFUSED, **_errors(404)},
        dependencies=[Depends(may_write)],
    )
    async def remove_document(
        id: Annotated[str, Path(description="The document's id.", examples=["d426"])],
    ) -> schemas.ChangeResponse:
        """Removes a document of the corpus, or one that was added."""
        return await backend.remove(id)


def _add_operations(app: FastAPI, backend: Backend) -> None:
    @app.get("/healthz", tags=["operate"], summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        """Answers as long as the process does."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["operate"], summary="Does it answer queries?", responses={503: {"model": schemas.Status}})
    async def readyz(response: Response) -> schemas.Status:
        """Says which version is in service, and why another one that should be is not."""
        status = backend.status()
        response.status_code = 200 if status.ready else 503
        return status

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url).rstrip("/")), headers=_NO_SCRIPTS)

    @app.get("/metrics", tags=["operate"], summary="Figures for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text format."""
        return Response(backend.metrics.text(), media_type=_METRICS_TYPE)


def _mount_page(app: FastAPI, backend: Backend, settings: ServeSettings) -> None:
    if module := _module("page_routes"):
        app.include_router(module.router(backend, settings), include_in_schema=False)


def _mount_mcp(app: FastAPI, backend: Backend, settings: ServeSettings) -> None:
    module = _module("mcp")
    if module is None or importlib.util.find_spec("mcp") is None:
        return
    routes, lifespan = module.routes(backend, settings)
    app.router.routes.extend(routes)  # /mcp itself: a mount would answer it with a redirect
    app.state.lifespans.append(lifespan)


def _module(name: str) -> Any:
    """A module of this package that an installation may lack; None where it does."""
    full = f"{__package__}.{name}"
    return importlib.import_module(full) if importlib.util.find_spec(full) else None
