"""What every flow shares: the guard against edits while a stage runs, and the flow as a program."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from prefect import flow

from flows.common import command, main
from tests.toy import set_params


@pytest.mark.parametrize("edited", ["setting", "code"])
def test_what_changes_while_a_stage_runs_is_not_what_it_is_made_of(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], edited: str
) -> None:
    """Prevents a model of the old settings or code in DVC's lock and cache as one of the new."""
    code = Path("src/room/stage.py")
    code.parent.mkdir(parents=True)
    code.write_text("first")
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("[raw.txt]", "[raw.txt, src/room]"))

    def stage() -> None:
        if edited == "code":
            code.write_text("second")
        set_params("promote", tolerance=2.0)  # which this stage does not read
        set_params("prepare", dev_fraction=0.2 if edited == "setting" else 0.1)

    monkeypatch.setenv("DVC_STAGE", "prepare")
    with pytest.raises(SystemExit) as found:
        main(flow(name="prepare")(stage))
    told = {"code": "prepare: src/room changed while", "setting": "prepare: prepare in params.yaml changed while"}
    assert found.value.code == 1 and told[edited] in capsys.readouterr().err
    main(flow(name="prepare")(lambda: set_params("promote", tolerance=1.0)))


@pytest.mark.parametrize(("module", "told"), [("mine_candidates", "--round"), ("prepare", "--data-docs")])
def test_help_of_a_flow_runs_nothing(
    module: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents a training by somebody who only asked what a command does."""
    flow_module = importlib.import_module(f"flows.{module}")
    one = getattr(flow_module, "mine" if module == "mine_candidates" else "prepare")
    others = [flow_module.data_docs] if module == "prepare" else []
    monkeypatch.setattr(sys, "argv", [f"flows/{module}.py", "--help"])
    with pytest.raises(SystemExit) as found:
        command(one, *others)
    printed = capsys.readouterr().out
    assert found.value.code == 0 and told in printed and f"python -m flows.{module}" in printed
    assert " ".join(one.description.split())[:40] in " ".join(printed.split())
