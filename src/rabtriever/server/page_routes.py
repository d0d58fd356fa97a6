"""The routes of the page: its files, what its views show, and what people do on it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse
from pydantic import Field

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.search.live import Query
from rabtriever.server import limits, page_cost, page_data, page_versions, schemas
from rabtriever.server.access import Caller, may_write, must_be_admin
from rabtriever.server.answers import search_result
from rabtriever.server.backend import Backend
from rabtriever.server.errors import ApiError
from rabtriever.server.labels import FILE, Labels
from rabtriever.server.project import NothingHere, Project
from rabtriever.server.settings import ServeSettings
from rabtriever.server.systems import MOST_READ, Systems

FOLDER = Path(__file__).parent / "page"
_KINDS = {".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    # what a browser must not do even where a text of the data got into the page as HTML
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_MOST_HITS = 100
_DocumentId = Annotated[str, Field(min_length=1, max_length=500)]


class Asked(schemas.Strict):
    """A query that is looked up among the judged ones."""

    query: schemas.Query


class RankRequest(Asked):
    """A query for one system; the teacher orders the documents that are named."""

    system: Literal["bm25", "biencoder", "student", "teacher"]
    k: int = Field(page_data.DEPTH, ge=1, le=_MOST_HITS)
    documents: list[_DocumentId] = Field([], max_length=MOST_READ)


class ExplainRequest(Asked):
    """A query and a document, whose score is to be taken apart."""

    document: _DocumentId


class LabelRequest(Asked):
    """What somebody says of a document; `user` is used where the request has no token."""

    document: _DocumentId
    grade: Literal[0, 1]
    user: str = Field("", max_length=80)
    version: str | None = Field(None, max_length=20)


class PromoteRequest(schemas.Strict):
    """A version that is to come into service, and why."""

    version: str = Field(pattern="^[0-9]{1,9}$")
    reason: str = Field(min_length=1, max_length=500)


class RollbackRequest(schemas.Strict):
    """A version that is to come back, and why."""

    to: str = Field("previous", pattern="^([0-9]{1,9}|previous)$")
    reason: str = Field(min_length=1, max_length=500)


def router(backend: Backend, settings: ServeSettings, root: str | Path = ".") -> APIRouter:
    """The routes of the page.

    Args:
        backend: what is in service.
        settings: of the server.
        root: the project folder, whose reports, models and labels are shown.
    """
    project, found = Project(root), APIRouter()
    _add_files(found)
    _add_views(found, backend, settings, project)
    _add_questions(found, backend, settings, project)
    _add_labels(found, backend, settings, Labels(Path(root) / FILE))
    _add_versions(found)
    return found


def _add_files(found: APIRouter) -> None:
    names = {path.name: path for path in FOLDER.iterdir() if path.suffix in _KINDS}

    @found.get("/")
    def index() -> FileResponse:
        return FileResponse(FOLDER / "index.html", media_type="text/html", headers=_HEADERS)

    @found.get("/static/page/{name}")
    def file(name: str) -> FileResponse:
        if name not in names:
            raise ApiError(404, f"the page has no file {ascii(name)[:60]}")
        return FileResponse(names[name], media_type=_KINDS[names[name].suffix], headers=_HEADERS)


def _add_views(found: APIRouter, backend: Backend, settings: ServeSettings, project: Project) -> None:
    @found.get("/page/overview")
    def overview(request: Request) -> dict[str, Any]:
        status, shown = backend.status(), _shown(lambda: page_data.overview(project.finished()))
        caller: Caller = request.scope["caller"]
        return {
            **shown,
            "service": status.model_dump(),
            "note": _other_run(shown.get("retriever"), status.model, project),
            "caller": {"name": caller.name, "admin": caller.admin},
            "tokens": bool(settings.tokens),
        }

    views: dict[str, Callable[[], dict[str, Any]]] = {
        "losses": lambda: page_data.losses(project.finished()),
        "versions": lambda: page_versions.versions(project),
        "data": lambda: page_data.data(project.finished(), project),
        "cost": lambda: page_cost.cost(project.finished()),
    }
    for name, view in views.items():
        found.add_api_route(f"/page/{name}", functools.partial(_shown, view), methods=["GET"], response_model=None)

    @found.get("/page/queries/{query_id:path}")
    def query(query_id: str) -> dict[str, Any]:
        try:
            return page_data.rankings(project.finished(), query_id)
        except (KeyError, NothingHere) as error:
            raise ApiError(404, f"the last run has no test query {ascii(query_id)[:60]}") from error


def _shown(view: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a view shows, or why it cannot, which is no error: a server may run without a project."""
    try:
        return view()
    except NothingHere as error:
        return {"missing": str(error)}


def _other_run(reported: str | None, model: str | None, project: Project) -> str | None:
    """A sentence where the reports are of another retriever than the one in service."""
    if reported is None or model is None or reported.startswith(model):
        return None
    return (
        f"The reports in {project.paths.reports} are of the retriever {reported[:12]}; {model} is in service. "
        "Figures, recorded rankings and the other systems are of the former."
    )


def _add_questions(found: APIRouter, backend: Backend, settings: ServeSettings, project: Project) -> None:
    systems = Systems(project, lambda: backend.live)

    @found.get("/page/systems")
    def states() -> dict[str, dict[str, str]]:
        return systems.states()

    @found.post("/page/judged")
    def judged(asked: Asked) -> dict[str, Any]:
        try:
            return page_data.judged(project, asked.query)
        except NothingHere:
            return {"id": None, "grades": {}}

    @found.post("/page/rank")
    async def rank(asked: RankRequest) -> dict[str, Any]:
        limits.check_search(schemas.SearchRequest(query=asked.query, k=asked.k), settings)
        if asked.system == "student":
            return await _student(backend, asked)
        return await _in_thread(lambda: _ranked(backend, systems, asked))

    @found.post("/page/explain")
    async def explain(asked: ExplainRequest) -> dict[str, Any]:
        live = backend.live
        _document(backend, asked.document)
        parts = await backend.run(lambda: live.explain(asked.query, asked.document))
        return {"parts": parts.parts, "total": parts.total}


async def _in_thread(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(job)


async def _student(backend: Backend, asked: RankRequest) -> dict[str, Any]:
    start = time.perf_counter()
    [found] = await backend.find([Query(asked.query, asked.k)])
    spent = 1000 * (time.perf_counter() - start)
    result = search_result(found.live, found.hits, None)
    hits = [(hit.id, hit.score) for hit in result.hits]
    documents = {hit.id: {"title": hit.title, "text": hit.text} for hit in result.hits}
    return {
        "hits": hits,
        "documents": documents,
        "ms": spent,
        "version": result.version,
        "low_confidence": result.low_confidence,
    }


def _ranked(backend: Backend, systems: Systems, asked: RankRequest) -> dict[str, Any]:
    """The ranking of a system beside the student."""
    try:
        if asked.system == "teacher":
            documents = [_document(backend, doc_id) for doc_id in dict.fromkeys(asked.documents)]
            ranking = systems.read(asked.query, documents)
        else:
            ranking = systems.rank(asked.system, asked.query, asked.k)
    except LookupError as error:
        raise ApiError(503, str(error), {"Retry-After": "5"}) from error
    hits = ranking.hits[: asked.k]
    shown = {doc_id: page_data.shown(_document(backend, doc_id)) for doc_id, _ in hits}
    return {"hits": hits, "documents": shown, "ms": ranking.milliseconds}


def _document(backend: Backend, doc_id: str) -> Any:
    try:
        return backend.live.document(doc_id)
    except ValueError as error:
        raise ApiError(404, ascii(str(error))[1:-1]) from error


def _add_labels(found: APIRouter, backend: Backend, settings: ServeSettings, labels: Labels) -> None:
    @found.get("/page/labels")
    def shown(request: Request) -> dict[str, Any]:
        try:
            request.app.state.access.check_write(request.scope["caller"])
            writable = True
        except ApiError:
            writable = False
        return {**labels.shown(), "writable": writable}

    @found.post("/page/labels")
    def add(asked: LabelRequest, caller: Annotated[Caller, Depends(may_write)]) -> dict[str, Any]:
        limits.check_search(schemas.SearchRequest(query=asked.query), settings)
        _document(backend, asked.document)
        user = caller.name if caller.known else asked.user
        label = labels.add(asked.query, asked.document, asked.grade, user, asked.version or backend.live.version)
        return {"query_id": label.query_id, "time": label.time, "user": label.user}


def _add_versions(found: APIRouter) -> None:
    @found.post("/page/promote")
    def promote(asked: PromoteRequest, caller: Annotated[Caller, Depends(must_be_admin)]) -> dict[str, Any]:
        from rabtriever.ops import by_hand, registry

        version = registry.get(asked.version)
        if version is None:
            raise ApiError(404, f"the registry has no version {asked.version}; the view of versions lists them")
        return _done(lambda: by_hand.promote(version, asked.reason, caller.name))

    @found.post("/page/rollback")
    def rollback(asked: RollbackRequest, caller: Annotated[Caller, Depends(must_be_admin)]) -> dict[str, Any]:
        from rabtriever.ops import by_hand

        return _done(lambda: by_hand.rollback(asked.to, asked.reason, caller.name))


def _done(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return action()
    except (ValueError, ArtifactMismatchError, FileNotFoundError) as error:
        raise ApiError(422, ascii(str(error))[1:-1]) from error
