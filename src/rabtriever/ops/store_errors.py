"""What MLflow and its database raise, told in words: what is wrong with the store, and what to do."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator

# of MLflow's client: 20 seconds for a server that does not answer, in place of minutes
BRIEFLY = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# what SQLite says: what that means, and what to do
_OF_A_FILE = {
    "readonly database": "it cannot be written; give yourself the right to write it and its folder",
    "unable to open database file": "it cannot be opened; look at the rights of the file and its folder",
    "database is locked": "another process keeps it locked; wait for its end or stop it, then run again",
    "disk is full": "the disk is full; make room, then run again",
    "disk I/O error": "the disk failed to read or write it; look at the disk",
    "not a database": "it is not a database, or damaged; put a copy back (rabtriever restore FILE)",
    "malformed": "it is damaged; put a copy back (rabtriever restore FILE)",
}
_NO_ANSWER = ("Max retries exceeded", "Connection refused", "timed out", "Connection aborted", "Read timed out")


@contextlib.contextmanager
def store_errors_of(address: Callable[[], str]) -> Iterator[None]:
    """Turns what MLflow and SQLite raise into an error that is told as others are.

    Args:
        address: returns the address of the store; called where something was raised.

    Raises:
        ConnectionError: one of them raised something.
    """
    try:
        yield
    except Exception as error:
        if not _is_of_store(error):
            raise
        raise ConnectionError(_told(str(error), address())) from error


@contextlib.contextmanager
def brief_waits() -> Iterator[None]:
    """Lets MLflow's client give up on a server after seconds, unless the environment says otherwise."""
    given = {name: value for name, value in BRIEFLY.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)


def meaning_of(said: str) -> str | None:
    """What a message of SQLite about a file means, and what to do; None for another message."""
    return next((meaning for words, meaning in _OF_A_FILE.items() if words in said), None)


def _is_of_store(error: Exception) -> bool:
    """Whether an error is of MLflow or a database; none of these libraries is imported for this alone."""
    if type(error).__module__.partition(".")[0] in ("sqlite3", "sqlalchemy"):
        return True
    module = sys.modules.get("mlflow.exceptions")
    return module is not None and isinstance(error, module.MlflowException)


def _told(said: str, uri: str) -> str:
    if uri.startswith("sqlite:"):
        if meaning := meaning_of(said):
            return f"the store {uri} failed: {meaning}"
        return f"MLflow, with the store {uri}, failed: {said.partition('[SQL:')[0].strip()}"
    advice = "see that the address in MLFLOW_TRACKING_URI is right and its server runs"
    if any(words in said for words in _NO_ANSWER):
        return f"the server {uri} does not answer; {advice}"
    return f"MLflow, with the store {uri}, failed: {said}; {advice}"
