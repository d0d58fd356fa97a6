"""The one form of an error: {"error": {"type", "message", "request_id"}}."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException

TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    422: "unprocessable",
    429: "too_many_requests",
    500: "internal_error",
    503: "unavailable",
    504: "timeout",
}
_SHOWN = 60  # characters of a refused value
_MOST = 3  # faults that one message names


class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: the HTTP status, a key of `TYPES`.
        message: what was found, what was expected, what to do.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, dict(headers or {})


def in_ascii(value: object) -> str:
    """What a value says, with an escape for each character that a terminal or log might not show."""
    return str(value).encode("ascii", "backslashreplace").decode()


def error_body(status: int, message: str, request_id: str) -> dict[str, dict[str, str]]:
    """The JSON form of an error; a status that has no type of its own is a bad request or an internal error."""
    kind = TYPES.get(status) or TYPES[500 if status >= 500 else 400]
    return {"error": {"type": kind, "message": message, "request_id": request_id}}


def error_answer(status: int, message: str, request_id: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a refused request."""
    return JSONResponse(error_body(status, message, request_id), status, dict(headers or {}))


def add_handlers(app: FastAPI) -> None:
    """Gives every error of an app the one form."""
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return error_answer(error.status, error.message, _request_id(request), error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = error.errors()
    status = 400 if any(fault["type"] == "json_invalid" for fault in faults) else 422
    return error_answer(status, told(faults), _request_id(request))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"there is no {_shown(request.url.path)}; /docs lists what there is"
    elif error.status_code == 405:
        allowed = Headers(dict(error.headers or {})).get("allow", "another method")
        message = f"{request.method} is not possible here, expected {allowed}"
    else:
        message = str(error.detail)
    return error_answer(error.status_code, message, _request_id(request), error.headers)


def told(faults: Sequence[Mapping[str, Any]]) -> str:
    """What pydantic found, as sentences: where, what was found, what was expected."""
    sentences = [_fault(fault) for fault in faults[:_MOST]]
    if len(faults) > _MOST:
        sentences.append(f"and {len(faults) - _MOST} more")
    return "; ".join(sentences)


def _fault(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        return f"the body is not JSON ({fault.get('ctx', {}).get('error', 'not readable')}); send a JSON object"
    if isinstance(fault.get("input"), bytes):  # which was not read, for want of its type
        return "the body has another type than JSON, expected the header Content-Type: application/json"
    # a part with a space is none of the request: it names one of the types that a field may have
    parts = [str(part) for part in fault["loc"] if part != "body" and " " not in str(part)]
    place = ".".join(parts) or "the body"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{_shown(place, quoted=False)} is missing; /docs has examples"
    if fault["type"] == "value_error":  # its own sentence says what was found
        return message
    return f"{_shown(place, quoted=False)} is {_shown(fault.get('input'))}: {message[:1].lower()}{message[1:]}"


def _shown(value: Any, quoted: bool = True) -> str:
    """A value as ASCII of bounded length, so that no request can make an answer that is not UTF-8."""
    shown = ascii(value) if quoted else in_ascii(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def _request_id(request: Request) -> str:
    return request.scope.get("request_id", "")
