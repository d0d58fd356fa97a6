"""The Makefile as a user calls it: what is typed reaches the programs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.closure import ROOT

SAYS = "#!/usr/bin/env python3\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
VALUES = [
    "it's mine",
    'a "b" c',
    "$(touch made) `touch made` $(shell touch made)",
    "$HOME $$x ${y}",
    "two\nlines",
    "a;b & c | d > made",
    "-x",
    "blanks  inside and behind ",  # make itself drops those in front
    "back\\slash # no comment",
]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside an environment whose Python says how it was called."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.installed").touch()
    python = tmp_path / ".venv/bin/python"
    python.write_text(SAYS)
    python.chmod(0o755)
    return tmp_path


def called(checkout: Path, *words: str, **environment: str) -> list[str]:
    """What `make` called Python with."""
    given = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "--no-print-directory", *words]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, env={**given, **environment})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("value", VALUES)
def test_values_reach_the_programs_as_typed(checkout: Path, value: str) -> None:
    """O41: prevents a syntax error of the shell for an apostrophe, and a command that runs out of a folder's name."""
    flow = ["-m", "flows.retrain"]
    assert called(checkout, "run", f"DATA={value}") == [*flow, f"--data={value}"]
    assert called(checkout, "run", DATA=value, PROFILE=value) == [*flow, f"--data={value}", f"--profile={value}"]
    assert called(checkout, "study", f"STUDY={value}") == ["-m", "research.study", value]
    assert called(checkout, "data", f"FROM={value}") == ["-m", "research.get_data", value]
    assert not (checkout / "made").exists()


def test_what_is_not_given_is_not_handed_on(checkout: Path) -> None:
    """O41: prevents an empty folder's name where none was given, and words of ARGS that are taken for one."""
    assert called(checkout, "run") == ["-m", "flows.retrain"]
    assert called(checkout, "study", "ARGS=--only 'a b'") == ["-m", "research.study", "small", "--only", "a b"]
    assert called(checkout, "test", "ARGS=-k 'a or b'")[-2:] == ["-k", "a or b"]
    assert called(checkout, "test", "WORKERS=3")[2:5] == ["-n", "3", "--dist"]
