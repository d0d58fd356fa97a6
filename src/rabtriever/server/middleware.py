"""What happens to every request: an id, the host, the token, the size of the body, one line in the log, metrics."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rabtriever.server.access import Access
from rabtriever.server.errors import ApiError, error_answer
from rabtriever.server.metrics import Metrics
from rabtriever.server.settings import ServeSettings

REQUEST_ID = "X-Request-ID"
access_log = logging.getLogger("rabtriever.access")
log = logging.getLogger("rabtriever.server")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


class RequestMiddleware:
    """Wraps an ASGI app.

    Args:
        app: the app.
        settings: of the server.
        access: its tokens.
        metrics: its counters.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, access: Access, metrics: Metrics) -> None:
        self._app, self._settings, self._access, self._metrics = app, settings, access, metrics
        self._hosts = {settings.host, *_LOOPBACK, *settings.hosts} if settings.loopback else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, start = Headers(scope=scope), time.perf_counter()
        asked = headers.get(REQUEST_ID, "")
        scope["request_id"] = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        scope["notes"] = {}  # what a route adds to the line of the log
        answer = _Answer(send, scope["request_id"])
        self._metrics.in_progress(1)
        try:
            await self._answered(scope, headers, receive, answer)
        finally:
            self._metrics.in_progress(-1)
            self._note(scope, answer.status, time.perf_counter() - start)

    async def _answered(self, scope: Scope, headers: Headers, receive: Receive, answer: _Answer) -> None:
        try:
            self._check_host(headers.get("host", ""))
            scope["caller"] = self._access.caller(headers.get("authorization"), scope["path"])
            self._check_size(_length(headers.get("content-length")))
            await self._app(scope, self._counted(receive), answer.send)
        except ApiError as error:
            refused = error_answer(error.status, error.message, scope["request_id"], error.headers)
            await refused(scope, receive, answer.send)
        except Exception:
            log.exception("request %s failed", scope["request_id"])
            if answer.status is not None:  # the answer has begun; the client sees it end early
                raise
            message = "the server failed; its log has the request's id and the reason"
            await error_answer(500, message, scope["request_id"])(scope, receive, answer.send)

    def _check_host(self, host: str) -> None:
        """Refuses names that a page on another site may have led to this address (DNS rebinding)."""
        name = re.sub(r":\d*$", "", host).lower()
        if self._hosts is not None and name not in self._hosts:
            raise ApiError(
                403, f"the header Host is {ascii(host)[:80]}, expected a loopback name; start with --allow-host"
            )

    def _check_size(self, size: int) -> None:
        most = self._settings.body_bytes
        if size > most:
            raise ApiError(413, f"the body has {size:,} bytes, expected at most {most:,}; send several requests")

    def _counted(self, receive: Receive) -> Receive:
        """A channel that ends a body that is longer than its request said, or did not say."""
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            try:
                self._check_size(size)
            except ApiError as error:
                raise HTTPException(error.status, error.message) from error  # the only one that FastAPI lets through
            return message

        return counted

    def _note(self, scope: Scope, status: int | None, seconds: float) -> None:
        route, status = route_of(scope), status or 499  # the client has gone before the answer
        self._metrics.request(route, scope["method"], status, seconds)
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "request_id": scope["request_id"],
            "caller": scope["caller"].name if "caller" in scope else None,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 2),
            **scope["notes"],
        }
        access_log.info(json.dumps(line))


def route_of(scope: MutableMapping[str, Any]) -> str:
    """The pattern of the route that answered; "other" where there is none, so that labels stay few."""
    route = scope.get("route")
    return getattr(route, "path", None) or ("mcp" if scope["path"].startswith("/mcp") else "other")


def _length(header: str | None) -> int:
    return int(header) if header and header.isascii() and header.isdigit() else 0


class _Answer:
    """The channel to a client: notes the status, and adds the request's id."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)[REQUEST_ID] = self._id
        await self._send(message)
