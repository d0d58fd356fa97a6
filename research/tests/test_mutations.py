"""Planting faults: what is refused, what is reported, and that the working tree is never touched."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rabtriever.core.artifacts import read_json
from research import mutations
from research.mutations import LIST, RESULT, MutationError, check_mutations, main, read_mutations

SOURCE = "def later(step):\n    return step + 1\n\n\ndef share(part, whole):\n    return part / whole\n"
TESTS = (
    "import pathlib\n"
    "import toy\n"
    "def test_it_is_the_copy():\n"
    "    assert pathlib.Path(toy.__file__).parents[1] == pathlib.Path(__file__).parents[1]\n"
    "def test_later():\n"
    "    assert toy.later(2) == 3\n"
    "def test_share():\n"
    "    assert toy.share(1, 1) == 1\n"
)
FAULTS = [
    {"planted": "one too few", "old": "step + 1", "new": "step - 1"},
    {"planted": "the wrong way round", "old": "part / whole", "new": "whole / part"},
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with two functions, of which a test looks at one closely, and a list of a fault in each."""
    for name, text in (("src/toy.py", SOURCE), ("tests/test_toy.py", TESTS)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write_list(tmp_path, FAULTS)
    return tmp_path


def write_list(project: Path, faults: list[dict[str, str]], tests: list[str] | None = None) -> None:
    """Makes these the list of faults."""
    (project / LIST).parent.mkdir(exist_ok=True)
    group = {"file": "src/toy.py", "tests": tests or ["tests/test_toy.py"], "faults": faults}
    (project / LIST).write_text(yaml.safe_dump([group]))


def test_what_survives_is_told(project: Path, capsys: pytest.CaptureFixture[str]):
    """A fault that no test finds is counted as found, in the table, the file or the status; or one stays planted."""
    assert main([], project) == 1
    killed = "tests/test_toy.py::test_later"
    assert read_json(project / RESULT) == [
        {"file": "src/toy.py", "planted": "one too few", "killed_by": killed},
        {"file": "src/toy.py", "planted": "the wrong way round", "killed_by": None},
    ]
    out = capsys.readouterr().out
    assert f"| src/toy.py | one too few | {killed} |" in out and "1 of 2 killed" in out
    assert "| src/toy.py | the wrong way round | **survived** |" in out
    assert (project / "src/toy.py").read_text() == SOURCE and not list((project / "src").rglob("*.pyc"))


Answer = Callable[[str], tuple[int, str]]


@pytest.fixture
def pytest_says(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Has a function stand for the process that runs tests: of the source it makes exit status and output."""

    def stand_in(answer: Answer) -> None:
        def run(command: list[str], cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
            status, output = answer((cwd / "src/toy.py").read_text())
            return subprocess.CompletedProcess(command, status, output)

        monkeypatch.setattr(mutations.subprocess, "run", run)

    return stand_in


def test_a_part_of_the_list_leaves_the_result(project: Path, pytest_says: Any, capsys: pytest.CaptureFixture[str]):
    """The table of all faults is replaced by that of a few; or a misspelt choice is reported as success."""
    pytest_says(lambda source: (0, "") if source == SOURCE else (1, "FAILED tests/test_toy.py::test_later - x"))
    assert main(["--only", "too few"], project) == 0
    assert "1 of 1 killed" in capsys.readouterr().out and not (project / RESULT).exists()
    assert main(["--only", "nowhere"], project) == 2
    assert "no fault has 'nowhere' in its file or words" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"old": "step + 2", "new": "step"}, r"old is found 0 times, expected once: 'step \+ 2'"),
        ({"old": "step", "new": "0"}, "old is found 2 times"),
        ({"old": "step + 1", "new": "step + 1"}, "the same text"),
    ],
)
def test_a_fault_that_cannot_be_planted_is_refused(project: Path, fault: dict[str, str], words: str):
    """The code has changed, nothing is planted any more, and the fault is reported as one that tests do not find."""
    write_list(project, [*FAULTS, {"planted": "stale", **fault}])
    with pytest.raises(MutationError, match=f"src/toy.py: 'stale': .*{words}"):
        check_mutations(read_mutations(project / LIST), project)


@pytest.mark.parametrize("test", ["tests/test_other.py", "tests/test_toy.py::test_late"])
def test_a_test_that_is_not_there_is_refused(project: Path, test: str):
    """A test was renamed, and no test looks for the fault any more."""
    write_list(project, FAULTS, ["tests/test_toy.py::test_later", test])
    with pytest.raises(MutationError, match=f"src/toy.py: 'one too few': there is no {test}$"):
        check_mutations(read_mutations(project / LIST)[:1], project)


def test_tests_that_fail_anyway_are_refused(project: Path, pytest_says: Any, capsys: pytest.CaptureFixture[str]):
    """Every fault is found by a test that fails without any."""
    pytest_says(lambda source: (1, "FAILED tests/test_toy.py::test_later - x"))
    assert main([], project) == 2
    assert "test_later fails without any fault; make it pass first" in capsys.readouterr().err
    assert not (project / RESULT).exists()


@pytest.mark.parametrize("status", [2, 4, 5])
def test_an_error_of_pytest_is_no_fault_found(
    project: Path, pytest_says: Any, capsys: pytest.CaptureFixture[str], status: int
):
    """Code that cannot be imported, or a test that is not collected, is reported as a fault that a test has found."""
    pytest_says(lambda source: (0, "") if source == SOURCE else (status, "ERROR tests/test_toy.py - SyntaxError"))
    assert main([], project) == 2
    assert f"pytest ends with status {status}: tests/test_toy.py\nERROR" in capsys.readouterr().err


def test_tests_that_never_end_find_the_fault(project: Path, pytest_says: Any):
    """One fault that makes a loop endless stops all that come after it."""

    def answer(source: str) -> tuple[int, str]:
        if "step - 1" in source:
            raise subprocess.TimeoutExpired("pytest", 900)
        return 0, ""

    pytest_says(answer)
    found = mutations.survey(read_mutations(project / LIST), project)
    assert [one.killed_by for one in found] == ["no end within 900 s", None]


def test_a_list_of_another_form_is_refused(project: Path):
    """A misspelt key ends in a traceback."""
    write_list(project, [{"planted": "x", "was": "step + 1", "new": "step"}])
    with pytest.raises(MutationError, match="expected file, tests, and faults of planted, old and new"):
        read_mutations(project / LIST)


def test_the_committed_list_fits_the_code():
    """A change of the code leaves faults behind that can no longer be planted."""
    found = read_mutations(mutations.ROOT / LIST)
    check_mutations(found, mutations.ROOT)
    assert len({(one.file, one.planted) for one in found}) == len(found)
