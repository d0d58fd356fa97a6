"""What every flow shares: the guard against edits while a stage runs, and the flow as a program."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from prefect import flow

from flows.common import command, main
from rabtriever.core import code
from tests.toy import set_params


def room_of_code(monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a room that the toy's stage `prepare` is made of."""
    file = Path("package/room/stage.py")
    file.parent.mkdir(parents=True)
    (file.parent / "__init__.py").touch()
    file.write_text("LOSS = 1\n")
    monkeypatch.setattr(code, "_PACKAGE", Path("package").resolve())
    listed = f"[raw.txt, {code.file_of('package/room')}]"
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("[raw.txt]", listed))
    code.write_identities()
    return file


@pytest.mark.parametrize("edited", ["setting", "code"])
def test_what_changes_while_a_stage_runs_is_not_what_it_is_made_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edited: str
) -> None:
    """Prevents a model of the old settings or code in DVC's lock and cache as one of the new."""
    file = room_of_code(monkeypatch)

    def stage() -> None:
        file.write_text("LOSS = 2\n" if edited == "code" else "LOSS = 1  # half\n")
        set_params("promote", tolerance=2.0)  # which this stage does not read
        set_params("prepare", dev_fraction=0.2 if edited == "setting" else 0.1)

    monkeypatch.setenv("DVC_STAGE", "prepare")
    with pytest.raises(SystemExit) as found:
        main(flow(name="prepare")(stage))
    told = {"code": "the code of package/room", "setting": "prepare in params.yaml"}
    assert found.value.code == 1 and f"prepare: {told[edited]} changed since the run began" in capsys.readouterr().err
    code.write_identities()
    main(flow(name="prepare")(lambda: set_params("promote", tolerance=1.0)))


def test_code_that_changed_before_a_stage_runs_stops_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """S09: prevents results of new code that DVC files under what the code was when the first stage began."""
    room_of_code(monkeypatch).write_text("LOSS = 2\n")
    monkeypatch.setenv("DVC_STAGE", "prepare")
    ran: list[bool] = []
    with pytest.raises(SystemExit):
        main(flow(name="prepare")(lambda: ran.append(True)))
    assert not ran and "the code of package/room changed since the run began" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["mine_candidates", "prepare"])
def test_help_of_a_flow_runs_nothing(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a training by somebody who only asked what a command does."""
    flow_module = importlib.import_module(f"flows.{module}")
    one = getattr(flow_module, "mine" if module == "mine_candidates" else "prepare")
    others = [flow_module.data_docs] if module == "prepare" else []
    monkeypatch.setattr(sys, "argv", [f"flows/{module}.py", "--help"])
    with pytest.raises(SystemExit) as found:
        command(one, *others)
    printed = capsys.readouterr().out
    assert ("--data-docs" in printed) is (module == "prepare")
    assert found.value.code == 0 and f"python -m flows.{module}" in printed
    assert " ".join(one.description.split())[:40] in " ".join(printed.split())
