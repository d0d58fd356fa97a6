"""`rabtriever backup` and `restore`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.cli import main
from tests.cli.registered import promoted


def test_a_project_goes_into_a_file_and_back(
    store: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """S06. Prevents a command that says it has saved what cannot be put back."""
    promoted(1.0)
    file = tmp_path_factory.mktemp("backups") / "one.zip"
    assert main(["backup", str(file)]) == 0
    assert "files: the store, settings" in capsys.readouterr().out
    assert main(["backup", str(file)]) == 1
    assert "add --force to replace it" in capsys.readouterr().err
    assert main(["backup", str(file), "--force"]) == 0
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert main(["restore", str(file)]) == 0
    assert "rabtriever models list" in capsys.readouterr().out
    assert main(["search", "need 1", "-k", "1"]) == 0
    assert "d06" in capsys.readouterr().out
    Path("models/retriever/best.json").write_text("{}")
    assert main(["restore", str(file)]) == 1
    assert "models/retriever would be replaced" in capsys.readouterr().err
    assert main(["restore", str(file), "--force"]) == 0
