"""`rabtriever serve` before it serves: what it says of settings that cannot work."""

from __future__ import annotations

import pytest

from rabtriever import cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--set k=0", "rabtriever serve: k is 0, expected 1 to 1,000,000; change the setting"),
        ("--token-file none", "rabtriever serve: "),
        ("--model chamption", "rabtriever serve: 'chamption' is not a folder; expected champion"),
    ],
)
def test_what_cannot_work_is_told_in_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a stack trace where a word was misspelt."""
    monkeypatch.delenv("RABTRIEVER_DEBUG", raising=False)
    assert cli.main(["serve", *words.split()]) == 1
    told = capsys.readouterr().err
    assert told.startswith(message) and len(told.splitlines()) == 1
