"""`rabtriever mcp`: the tools of an agent that starts this program and speaks MCP with it; all else goes to stderr."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING

from rabtriever.cli.opening import fast_imports, told_when_slow

if TYPE_CHECKING:
    from rabtriever.server.backend import Backend


def serve(parsed: argparse.Namespace) -> None:
    """Answers until standard input ends, and follows the champion meanwhile."""
    with contextlib.redirect_stdout(sys.stderr):  # stdout is the protocol's
        backend = _loaded(parsed)
    asyncio.run(_answer(backend))


def _loaded(parsed: argparse.Namespace) -> Backend:
    with told_when_slow(f"loading the retriever {parsed.model}; this takes some seconds"), fast_imports():
        from rabtriever.server.backend import Backend
        from rabtriever.server.settings import ServeSettings
        from rabtriever.server.versions import store_of

        settings = ServeSettings(model=parsed.model, documents=parsed.documents)
        backend = Backend(settings, store_of(settings))
        backend.load()
    return backend


async def _answer(backend: Backend) -> None:
    from rabtriever.server.mcp import mcp_server

    await backend.start()
    try:
        await mcp_server(backend).run_stdio_async()
    finally:
        await backend.stop()
