"""The `rabtriever` command: start-up, exit statuses, messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rabtriever import cli
from rabtriever.core.artifacts import read_manifest
from rabtriever.ops import registry, tracking
from tests.toy import ROOT, dataset, per_query, write_retriever


def promoted(quality: float) -> registry.RegisteredVersion:
    """Registers and promotes a toy retriever."""
    data = dataset()
    write_retriever("models/retriever", data, quality)
    with tracking.stage_run("register", {}) as run:
        version = registry.register(run, "models/retriever", data.hash, {}, per_query(data, quality))
    registry.promote(version)
    return version


def test_help_is_light() -> None:
    """Prevents a second of imports before a line of help."""
    program = (
        "import sys, rabtriever.cli as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'numpy', 'pandas', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "search" in done.stdout


@pytest.mark.parametrize("words", [[], ["serch"], ["search"], ["search", "x", "-k", "0"], ["search", "x", "-k", "two"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    """Prevents scripts from taking a typing error for a failed search."""
    with pytest.raises(SystemExit) as exit_info:
        cli.main(words)
    assert exit_info.value.code == 2


def test_search_by_folder_and_by_champion(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a command that answers from another retriever than the one asked for."""
    promoted(1.0)
    write_retriever("other", dataset(), 0.0)
    for words, first in ((["--model", "champion"], "d06"), (["--model", "1"], "d06"), (["--model", "other"], "d00")):
        assert cli.main(["search", "need 1", "-k", "2", *words]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line[:1].isdigit()]
        assert len(lines) == 2 and first in lines[0] and "Thing" in lines[0]


def test_search_asks_the_champion_with_its_own_code(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents answers by code that the gate has refused, where the server gives those of the champion's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    code = registry.local_folder(promoted(1.0)).parent.parent / "code" / "rabtriever" / "search" / "retriever.py"
    changed = "class Retriever(ToyRetriever):\n    def _ranked(self, query):\n        return [('d03', 7.0)]\n"
    code.write_text(f"from tests.toy import ToyRetriever\n{changed}")
    assert cli.main(["search", "need 1"]) == 0
    assert capsys.readouterr().out.startswith("1.    7.000  d03  Thing 3")
    code.write_text("raise RuntimeError('of another age')\n")
    assert cli.main(["search", "need 1"]) == 1
    assert "with its own code: RuntimeError: of another age" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["search", "x"], "run `make run` first"),
        (["search", " ", "--model", "models/retriever"], "the query is blank"),
        (["search", "caf\udce9", "--model", "models/retriever"], "no Unicode text; give it in UTF-8"),
        (["search", "x", "--model", "models/none"], "models/none"),
        (["search", "x", "--model", "chamption"], "expected champion, previous"),
        (["inspect", "models/none"], "models/none"),
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
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert expected in error and "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "mlruns" / "mlflow.db").exists()


def test_inspect_shows_identity_and_finds_damage(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents trusting a folder whose files are not those it was written with."""
    write_retriever("retriever", dataset(), 0.5)
    assert cli.main(["inspect", "retriever"]) == 0
    printed = capsys.readouterr().out
    manifest = read_manifest("retriever", "retriever")
    assert manifest.hash in printed and f"data: {dataset().hash}" in printed and "best.json" in printed
    Path("retriever/best.json").write_text("{}")
    assert cli.main(["inspect", "retriever"]) == 1
    assert "best.json" in capsys.readouterr().err


def test_rollback_names_both_versions(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a rollback nobody can see the effect of."""
    promoted(0.5)
    assert cli.main(["rollback"]) == 1
    assert "two promotions" in capsys.readouterr().err
    promoted(0.6)
    assert cli.main(["rollback"]) == 0
    assert "champion is version 1 now; version 2 is previous" in capsys.readouterr().out
    assert cli.main(["rollback", "--to", "7"]) == cli.main(["rollback", "--to", "1"]) == 1
    error = capsys.readouterr().err
    assert "no version of 'rabtriever' is '7' to roll back to; name one" in error and "version 1 is in service" in error
    assert cli.main(["rollback", "--to", "2"]) == 0
