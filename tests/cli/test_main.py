"""The `rabtriever` command: start-up, exit statuses, messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rabtriever
from rabtriever.cli import main
from rabtriever.cli.main import _told


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["models", "--help"]])
def test_help_is_light(words: list[str]) -> None:
    """Prevents a second of imports before a line of help."""
    program = (
        "import sys\nfrom rabtriever.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'numpy', 'pandas', 'transformers', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("rabtriever " + rabtriever.__version__ if "--version" in words else "usage") in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["serch"],
        ["search"],
        ["search", "x", "-k", "0"],
        ["search", "x", "-k", "two"],
        ["search", "x", "-f", "queries.jsonl"],
        ["search", "x", "--json", "--trec", "run.trec"],
        ["models"],
        ["models", "compare", "1"],
        ["explain", "x"],
        ["data", "check"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    """Prevents scripts from taking a typing error for a failed search."""
    with pytest.raises(SystemExit) as exit_info:
        main(words)
    assert exit_info.value.code == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["search", "x"], "run `make run` first"),
        (["search", " ", "--model", "models/retriever"], "the query is blank"),
        (["search", "caf\udce9", "--model", "models/retriever"], "not Unicode text; give it in UTF-8"),
        (["search", "x", "--model", "models/none"], "models/none"),
        (["search", "x", "--model", "chamption"], "'chamption' is not a folder; expected champion, previous"),
        (["search", "-f", "none.jsonl"], "none.jsonl"),
        (["explain", "x", "d01", "--model", "models/none"], "models/none"),
        (["evaluate", "data", "--model", "models/none"], "models/none"),
        (["data", "check", "none"], "none"),
        (["inspect", "models/none"], "models/none"),
        (["models", "list"], "run `make run` first"),
        (["models", "promote", "1"], "run `make run` first"),
        (["rollback"], "run `make run` first"),
    ],
)
def test_failures_are_status_1_and_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    expected: str,
) -> None:
    """Prevents tracebacks for what a user can put right, and a registry created by asking for one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(words) == 1
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()


def test_a_registry_that_does_not_answer_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """O47. Prevents four minutes of silence for a server that is down."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["search", "x"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rabtriever search:")]
    assert line.startswith("rabtriever search: the server http://127.0.0.1:9 does not answer; see that the address")


def test_messages_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """O46. Prevents a name in a message from colouring or clearing the terminal."""
    assert main(["data", "check", str(tmp_path / "no\x1b[2Jne")]) == 1
    shown = capsys.readouterr().err
    assert "no�[2Jne" in shown and "\x1b" not in shown


def test_a_missing_package_is_told_with_its_extra() -> None:
    """Prevents a bare `No module named` after a base install."""
    error = ModuleNotFoundError("No module named 'great_expectations'", name="great_expectations.core")
    assert _told(error) == "this needs great_expectations, which is not installed; run pip install 'rabtriever[train]'"
    assert _told(ModuleNotFoundError("No module named 'elsewhere'", name="elsewhere")) == "No module named 'elsewhere'"
