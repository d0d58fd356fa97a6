"""Tells how a retraining ended: as log and artifact of its Prefect flow run, and to a webhook where one is set.

Nothing here can fail a run: what cannot be told is said on standard error.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import logging
import os
import socket
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from rabtriever.ops import prefect_server
from rabtriever.ops.verdict import Outcome, Verdict

WEBHOOK = "RABTRIEVER_WEBHOOK"
ARTIFACT = "retraining"  # one key: Prefect keeps its versions as a history
_LEVELS = {Outcome.FAILED: logging.ERROR, Outcome.DATA_QUARANTINED: logging.ERROR, Outcome.REFUSED: logging.WARNING}
_TIMEOUT_SECONDS = 5.0
_PAUSES = (1.0, 3.0)  # between attempts
_BUSY = (408, 425, 429)  # and all of 500 and more: worth another attempt


def tell(verdict: Verdict) -> None:
    """Tells a verdict wherever somebody may look for it; never raises an Exception.

    Args:
        verdict: how the retraining ended.
    """
    run = prefect_server.flow_run()
    if run is not None:
        with _said("the log in Prefect"):
            prefect_server.log(verdict.line, _LEVELS.get(verdict.outcome, logging.INFO))
        with _said("the artifact in Prefect"):
            prefect_server.save_page(verdict.markdown(), ARTIFACT, verdict.line)
    url = os.environ.get(WEBHOOK)
    if url:
        with _said(f"the notification to {_shown(url)}"):
            sender = {"host": socket.gethostname(), "folder": os.getcwd(), "flow_run": None, "flow_run_url": None}
            send(url, {**verdict.message(), **sender, **(run or {})})


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Tells what ends the block as a verdict Failed, or as the one that the error carries, once; raises it again."""
    try:
        yield
    except Exception as error:
        if not getattr(error, "_told", False):
            tell(getattr(error, "verdict", None) or Verdict(Outcome.FAILED, str(error) or type(error).__name__))
            error._told = True  # type: ignore[attr-defined]
        raise


def send(url: str, message: Mapping[str, Any]) -> None:
    """Posts JSON, with at most three attempts of five seconds.

    Args:
        url: address, http or https.
        message: what to post.

    Raises:
        ValueError: the address is not one of http or https.
        OSError: nothing took the message.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https") or not urllib.parse.urlsplit(url).hostname:
        raise ValueError(f"{WEBHOOK} is not an address of http or https; correct or unset it")
    body = json.dumps(message, ensure_ascii=False).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", "User-Agent": "rabtriever"})
    for pause in (*_PAUSES, None):
        try:
            with _opener(url).open(request, timeout=_TIMEOUT_SECONDS):
                return
        except OSError as error:
            code = getattr(error, "code", None)
            final = code is not None and code < 500 and code not in _BUSY
            if pause is None or final:
                raise
        time.sleep(pause)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is redirected becomes a GET without its body: an error here, in place of a message that is lost."""

    def redirect_request(self, *arguments: Any) -> None:
        """Follows none."""


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Keeps what goes to this machine away from a proxy, which could not reach it."""
    handlers: list[Any] = [_NoRedirect()]
    if _is_loopback(urllib.parse.urlsplit(url).hostname or ""):
        handlers.append(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener(*handlers)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(url: str) -> str:
    """An address without its path, which is often a secret."""
    with contextlib.suppress(ValueError):
        parts = urllib.parse.urlsplit(url)
        if parts.hostname:
            return f"{parts.scheme}://{parts.hostname}"
    return WEBHOOK


@contextlib.contextmanager
def _said(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        print(f"retrain: {what} was not sent: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
