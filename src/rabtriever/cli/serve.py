"""`rabtriever serve`: the HTTP server of the version in service."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING

from rabtriever.cli.opening import told_when_slow
from rabtriever.ops.lookup import find_retriever

if TYPE_CHECKING:
    from rabtriever.server.settings import ServeSettings, Token

_DRAIN_SECONDS = 5  # that requests in progress have beyond their own time limit after SIGTERM


def serve(parsed: argparse.Namespace) -> None:
    """Serves until SIGTERM or Ctrl-C; requests in progress finish."""
    settings = settings_of(parsed)
    find_retriever(settings.model)  # a wrong name is told before the seconds of loading
    import uvicorn

    _log_lines()
    with told_when_slow(f"loading the retriever {settings.model}; this takes some seconds"):
        from rabtriever.server.app import create_app
        from rabtriever.server.backend import Backend
        from rabtriever.server.versions import store_of

        backend = Backend(settings, store_of(settings))
        backend.load()
    if not settings.loopback and not settings.tokens:
        print(f"{settings.host} is open to other machines, and no token is needed to search", file=sys.stderr)
    uvicorn.run(
        create_app(backend, settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=round(settings.timeout_seconds) + _DRAIN_SECONDS,
    )


def settings_of(parsed: argparse.Namespace) -> ServeSettings:
    """The settings that were typed.

    Raises:
        ValueError: one is unknown or out of its range.
        FileNotFoundError: there is no such token file.
    """
    from rabtriever.server.settings import ServeSettings

    return ServeSettings.of_texts(
        dict(_pair(text) for text in parsed.set),
        host=parsed.host,
        port=parsed.port,
        model=parsed.model,
        documents=parsed.documents,
        tokens=_tokens(parsed.token_file),
        cors_origins=tuple(parsed.cors_origin),
        hosts=tuple(parsed.allow_host),
        log_queries=parsed.log_queries,
    )


def _tokens(path: str | None) -> tuple[Token, ...]:
    from rabtriever.server.access import VARIABLE, parse_tokens, read_tokens

    if path is not None:
        return read_tokens(path)
    return parse_tokens(os.environ.get(VARIABLE, ""), VARIABLE)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set has {text!r}, expected NAME=NUMBER such as k=100")
    return name.strip(), value.strip()


def _log_lines() -> None:
    """The access log is JSON lines on stdout, everything else plain lines on stderr."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for name in ("httpx", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    access = logging.getLogger("rabtriever.access")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access.handlers, access.propagate = [handler], False
