"""What a server is started with: where it listens, what it serves, and how much a request may ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from ipaddress import ip_address
from typing import Self

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Token:
    """A bearer token.

    Attributes:
        name: who holds it; the log says so.
        secret: what a request sends.
        admin: whether it may change documents, promote, roll back and label.
    """

    name: str
    secret: str
    admin: bool = False


@dataclass(frozen=True)
class ServeSettings:
    """Settings of one server, checked when they are made.

    Attributes:
        host: address to listen on; by default this machine alone.
        port: port to listen on; 0 takes a free one.
        model: champion, previous, a version number, a models:/ URI, or a retriever folder.
        documents: SQLite file of added and removed documents; None for the one beside the registry's database.
        poll_seconds: seconds between two looks at the registry and at the documents.
        batch_queries: most queries that are encoded together.
        batch_wait_ms: how long a batch waits for further queries while several clients ask, in milliseconds.
        max_waiting: most queries that wait at once; a request beyond gets status 429.
        timeout_seconds: most seconds for one answer; a request beyond gets status 504.
        body_bytes: most bytes of a request's body.
        query_characters: most characters of one query.
        queries: most queries of one request.
        k: most documents wanted of one query.
        rerank_documents: most documents of one rerank request.
        change_documents: most documents of one request that adds them.
        tokens: bearer tokens; where there are none, requests need none.
        cors_origins: web origins whose pages may read answers.
        hosts: further names that the header Host may have; a server on a loopback address takes loopback names alone.
        log_queries: whether the access log holds the texts of queries.

    Raises:
        ValueError: a value is out of its range.
    """

    host: str = "127.0.0.1"
    port: int = 8100
    model: str = "champion"
    documents: str | None = None
    poll_seconds: float = 10.0
    batch_queries: int = 32
    batch_wait_ms: float = 2.0
    max_waiting: int = 256
    timeout_seconds: float = 30.0
    body_bytes: int = 5 * MEGABYTE
    query_characters: int = 20_000
    queries: int = 100
    k: int = 1_000
    rerank_documents: int = 1_000
    change_documents: int = 1_000
    tokens: tuple[Token, ...] = ()
    cors_origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    log_queries: bool = False

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not math.isfinite(value) or not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low:,} to {high:,}; change the setting")
        if self.queries > self.max_waiting:
            raise ValueError(
                f"queries is {self.queries} and max_waiting is {self.max_waiting}, expected no more queries in a "
                "request than may wait; change one of them"
            )

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @classmethod
    def of_texts(cls, texts: dict[str, str], **others: object) -> Self:
        """Settings of which some were typed.

        Args:
            texts: number settings by name, as typed.
            others: the other settings by name.

        Raises:
            ValueError: a name is not a number setting, a text is not a number, or a value is out of its range.
        """
        kinds = {field.name: _NUMBERS[str(field.type)] for field in fields(cls) if field.type in _NUMBERS}
        values: dict[str, object] = {}
        for name, text in texts.items():
            if name not in kinds:
                raise ValueError(f"no setting is {name!r}, expected one of {', '.join(kinds)}")
            try:
                values[name] = kinds[name](text.replace("_", ""))
            except ValueError:
                raise ValueError(f"{name} is {text!r}, expected a number such as {getattr(cls, name)}") from None
        return cls(**{**others, **values})  # type: ignore[arg-type]


_NUMBERS = {"int": int, "float": float}
_RANGES = (
    ("port", 0, 65_535),
    ("poll_seconds", 0.05, 86_400),
    ("batch_queries", 1, 4_096),
    ("batch_wait_ms", 0, 1_000),
    ("max_waiting", 1, 1_000_000),
    ("timeout_seconds", 0.01, 3_600),
    ("body_bytes", 1_000, 10_000_000_000),
    ("query_characters", 1, 10_000_000),
    ("queries", 1, 10_000),
    ("k", 1, 1_000_000),
    ("rerank_documents", 1, 100_000),
    ("change_documents", 1, 1_000_000),
)
