"""Settings of a server, and the command that takes them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rabtriever.cli.parser import build_parser
from rabtriever.cli.serve import settings_of
from rabtriever.server.settings import ServeSettings, Token

SECRET = "s" * 16


def parsed(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["serve", *words])


def test_the_command_alone_serves_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a server that the network reaches because nobody said otherwise."""
    monkeypatch.delenv("RABTRIEVER_TOKENS", raising=False)
    found = settings_of(parsed())
    assert found == ServeSettings() and found.loopback and found.port == 8100 and found.model == "champion"


def test_what_was_typed_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Prevents an option without effect."""
    monkeypatch.setenv("RABTRIEVER_TOKENS", f"env:{SECRET}")
    words = "--host 0.0.0.0 --port 9000 --model 3 --documents d.db --cors-origin https://a --cors-origin https://b"
    typed = parsed(*words.split(), "--allow-host", "x", "--log-queries", "--set", "k=50", "--set", "poll_seconds=2.5")
    found = settings_of(typed)
    assert found == ServeSettings(
        host="0.0.0.0",
        port=9000,
        model="3",
        documents="d.db",
        cors_origins=("https://a", "https://b"),
        hosts=("x",),
        log_queries=True,
        k=50,
        poll_seconds=2.5,
        tokens=(Token("env", SECRET),),
    )
    assert not found.loopback
    (tmp_path / "tokens").write_text(f"file:{SECRET}:admin")
    assert settings_of(parsed("--token-file", str(tmp_path / "tokens"))).tokens == (Token("file", SECRET, True),)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set k=0", "k is 0, expected 1 to 1,000,000"),
        ("--set k=many", "k is 'many', expected a number such as 1000"),
        ("--set kk=1", "no setting is 'kk', expected one of port, poll_seconds"),
        ("--set k", "--set has 'k', expected NAME=NUMBER"),
        ("--set poll_seconds=nan", "poll_seconds is nan, expected 0.05 to 86,400"),
        ("--port 70000", "port is 70000, expected 0 to 65,535"),
        ("--set max_waiting=10", "queries is 100 and max_waiting is 10"),
    ],
)
def test_wrong_settings_are_told(words: str, message: str) -> None:
    """Prevents a server that starts with a limit nobody meant."""
    with pytest.raises(ValueError, match=message):
        settings_of(parsed(*words.split()))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("name", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    """Prevents an open server that takes itself for a closed one."""
    assert ServeSettings(host=host).loopback is loopback
