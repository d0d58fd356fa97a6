"""Who may ask what: bearer tokens, and what needs the right `admin`."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request

from rabtriever.server.errors import ApiError
from rabtriever.server.settings import Token

VARIABLE = "RABTRIEVER_TOKENS"
# what needs no token, or a browser and a load balancer could not begin
OPEN = frozenset({"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico"})
OPEN_FOLDER = "/static/"
_SECRET = re.compile(r"[A-Za-z0-9._~+/=-]{16,}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes:
        name: name of the token; "anonymous" without one.
        admin: whether the token has the right `admin`.
        known: whether a token was sent.
    """

    name: str = "anonymous"
    admin: bool = False
    known: bool = False


class Access:
    """The tokens of a server.

    Args:
        tokens: the tokens; without any, requests need none.
        loopback: whether only this machine reaches the server.
    """

    def __init__(self, tokens: Sequence[Token], loopback: bool) -> None:
        self._known = [(_digest(token.secret), Caller(token.name, token.admin, True)) for token in tokens]
        self._loopback = loopback

    def caller(self, authorization: str | None, path: str) -> Caller:
        """Who sent a request.

        Args:
            authorization: the header of that name.
            path: what is asked for.

        Raises:
            ApiError: 401, no token or an unknown one, where one is needed.
        """
        if not self._known:
            return Caller()
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and (found := self._of(secret.strip())):
            return found
        if path in OPEN or path.startswith(OPEN_FOLDER):
            return Caller()
        what = "an unknown token" if authorization else "no token"
        raise ApiError(
            401,
            f"the request has {what}, expected the header Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )

    def _of(self, secret: str) -> Caller | None:
        """The caller of a secret; every token is compared, each in constant time."""
        asked, found = _digest(secret), None
        for digest, caller in self._known:
            if hmac.compare_digest(digest, asked):
                found = caller
        return found

    def check_write(self, caller: Caller) -> None:
        """Makes sure that a caller may change documents.

        Without tokens everybody may whom a loopback address lets in.

        Raises:
            ApiError: 403.
        """
        if not (caller.admin or (not self._known and self._loopback)):
            raise _forbidden(bool(self._known))

    def check_admin(self, caller: Caller) -> None:
        """Makes sure that a caller has a token with the right `admin`, as promoting and rolling back need.

        Raises:
            ApiError: 403.
        """
        if not caller.admin:
            raise _forbidden(bool(self._known))


def may_write(request: Request) -> Caller:
    """Dependency of routes that change documents; 403 for others."""
    request.app.state.access.check_write(request.scope["caller"])
    return request.scope["caller"]


def must_be_admin(request: Request) -> Caller:
    """Dependency of routes that choose the version in service; 403 without a token that has the right `admin`."""
    request.app.state.access.check_admin(request.scope["caller"])
    return request.scope["caller"]


def read_tokens(path: str | Path) -> tuple[Token, ...]:
    """The tokens of a file, see `parse_tokens`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not a token, or the file has none.
    """
    found = parse_tokens(Path(path).read_text(encoding="utf-8"), str(path))
    if not found:
        raise ValueError(f"{path} has no token, expected lines NAME:TOKEN or NAME:TOKEN:admin")
    return found


def parse_tokens(text: str, where: str) -> tuple[Token, ...]:
    """The tokens of a text: NAME:TOKEN or NAME:TOKEN:admin, one on a line or separated by commas; # begins a comment.

    Args:
        text: what is read; messages do not repeat it.
        where: what messages call it.

    Raises:
        ValueError: an entry is not a token, or a name or a token is there twice.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    tokens = tuple(_token(entry, number, where) for number, entry in enumerate(entries, start=1))
    for what in ("name", "secret"):
        if len({getattr(token, what) for token in tokens}) < len(tokens):
            raise ValueError(f"{where} has a {what} twice, expected different ones; change one of them")
    return tokens


def _token(entry: str, number: int, where: str) -> Token:
    name, _, rest = entry.partition(":")
    secret, _, right = rest.partition(":")
    if not _NAME.fullmatch(name) or not _SECRET.fullmatch(secret) or right not in ("", "admin"):
        raise ValueError(
            f"token {number} of {where} is not NAME:TOKEN or NAME:TOKEN:admin, with a token of at least 16 letters, "
            "digits or ._~+/=-; make one with: openssl rand -hex 32"
        )
    return Token(name, secret, right == "admin")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()


def _forbidden(has_tokens: bool) -> ApiError:
    if has_tokens:
        return ApiError(403, "the token lacks the right admin; use one that the token file lists as NAME:TOKEN:admin")
    return ApiError(403, f"the server has no tokens, expected one with the right admin; set {VARIABLE} or --token-file")
