"""Plants small faults in a copy of the code, one at a time, and tells which of them no test finds.

python -m research.mutations                 # all of research/mutations.yaml; writes research/mutations.json
python -m research.mutations --only losses   # those whose file or words contain this; writes nothing

A fault is killed when one of its tests fails. All tests have to pass on the copy before anything is planted. The exit
status is 0 when every fault was killed, 1 when one survived, 2 when the list or the code is not fit to be tested.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from rabtriever.core.artifacts import write_json

ROOT = Path(__file__).resolve().parents[1]
LIST = Path("research/mutations.yaml")
RESULT = Path("research/mutations.json")
COPIED = ("src", "tests", "flows", "research", "profiles", "params.yaml", "dvc.yaml", "pyproject.toml")
SECONDS = 900  # that the tests of a fault get before they count as hanging
OK, FAILED = 0, 1  # pytest's exit status; above it is no verdict of a test


class MutationError(ValueError):
    """The list does not fit the code, or the tests cannot tell anything."""


class Mutation(NamedTuple):
    """One fault.

    Attributes:
        file: the source file, relative to the repository.
        planted: what is wrong then, in words.
        old: text that occurs exactly once in the file.
        new: what stands there instead.
        tests: the test files, or single tests (`file::test`), that should find it.
    """

    file: str
    planted: str
    old: str
    new: str
    tests: tuple[str, ...]


class Verdict(NamedTuple):
    """What became of a fault: the first test that failed, or None where it survived."""

    file: str
    planted: str
    killed_by: str | None


def read_mutations(path: Path) -> list[Mutation]:
    """The faults of a list, in its order.

    Raises:
        MutationError: an entry has other keys than `file`, `tests` and `faults` of `planted`, `old` and `new`.
    """
    try:
        return [
            Mutation(group["file"], **fault, tests=tuple(group["tests"]))
            for group in yaml.safe_load(path.read_text(encoding="utf-8"))
            for fault in group["faults"]
        ]
    except (TypeError, KeyError, yaml.YAMLError) as error:
        raise MutationError(f"{path}: {error}; expected file, tests, and faults of planted, old and new") from error


def check_mutations(mutations: Iterable[Mutation], root: Path) -> None:
    """Makes sure that every fault can be planted.

    Raises:
        MutationError: an old text that is not found exactly once, that the new one equals, or a missing file.
    """
    wrong = [f"{one.file}: {one.planted!r}: {fault}" for one in mutations if (fault := _misfit(one, root))]
    if wrong:
        raise MutationError("\n".join(["these faults do not fit the code; correct the list", *wrong]))


def _misfit(one: Mutation, root: Path) -> str:
    if missing := [name for name in (one.file, *one.tests) if not _exists(name, root)]:
        return f"there is no {', '.join(missing)}"
    if one.old == one.new:
        return "old and new are the same text"
    count = (root / one.file).read_text(encoding="utf-8").count(one.old)
    return "" if count == 1 else f"old is found {count} times, expected once: {one.old!r}"


def _exists(name: str, root: Path) -> bool:
    path, _, test = name.partition("::")
    return (root / path).is_file() and (not test or f"def {test}(" in (root / path).read_text(encoding="utf-8"))


def survey(mutations: Sequence[Mutation], root: Path) -> list[Verdict]:
    """Plants each fault in a temporary copy of a repository and runs its tests there.

    Raises:
        MutationError: the list does not fit, or tests fail, or cannot be run, without any fault.
    """
    check_mutations(mutations, root)
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch:
        copy = _copied(root, Path(scratch))
        tests = list(dict.fromkeys(test for one in mutations for test in one.tests))
        print("mutations: the tests without any fault", flush=True)
        if failed := first_failure(copy, tests, seconds=None):
            raise MutationError(f"{failed} fails without any fault; make it pass first")
        return [_verdict(one, copy, f"{number}/{len(mutations)}") for number, one in enumerate(mutations, start=1)]


def _copied(root: Path, target: Path) -> Path:
    """The target, with all in it that the tests need."""
    for part in (root / name for name in COPIED):
        if part.is_dir():
            shutil.copytree(part, target / part.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif part.is_file():
            shutil.copy(part, target)
    return target


def _verdict(one: Mutation, copy: Path, count: str) -> Verdict:
    path = copy / one.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(one.old, one.new), encoding="utf-8")
    try:
        killed_by = first_failure(copy, one.tests)
    finally:
        path.write_text(sound, encoding="utf-8")
    print(f"mutations: {count} {one.planted}: {killed_by or 'SURVIVED'}", flush=True)
    return Verdict(one.file, one.planted, killed_by)


def first_failure(copy: Path, tests: Sequence[str], seconds: float | None = SECONDS) -> str | None:
    """The first of the tests that fails in a copy of the repository, None where all pass.

    Tests that do not end in time have failed.

    Raises:
        MutationError: pytest could not run them, as after an error of syntax.
    """
    # bytecode is told by time and size: a fault of the same length, planted within a second, would not be seen
    path = os.pathsep.join([str(copy / "src"), str(copy)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    options = ["-x", "-q", "-o", "addopts=", "--tb=no", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
    command = [sys.executable, "-m", "pytest", *options, "-m", "not slow", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"no end within {seconds:g} s"
    if done.returncode == OK:
        return None
    if done.returncode > FAILED:
        raise MutationError(f"pytest ends with status {done.returncode}: {' '.join(tests)}\n{done.stdout[-2000:]}")
    named = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return named[0] if named else f"an end with status {done.returncode}"


def table(verdicts: Iterable[Verdict]) -> str:
    """The verdicts as a table in Markdown."""
    rows = [f"| {one.file} | {one.planted} | {one.killed_by or '**survived**'} |" for one in verdicts]
    return "\n".join(["| file | planted | killed by |", "|---|---|---|", *rows])


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Runs the faults asked for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m research.mutations", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose file or words contain this")
    only = parser.parse_args(arguments).only
    try:
        chosen = [one for one in read_mutations(root / LIST) if only in one.file or only in one.planted]
        if not chosen:
            raise MutationError(f"no fault has {only!r} in its file or words; see {LIST}")
        verdicts = survey(chosen, root)
    except MutationError as error:
        print(f"mutations: {error}", file=sys.stderr)
        return 2
    if not only:
        write_json(root / RESULT, [one._asdict() for one in verdicts])
    print(table(verdicts))
    survived = sum(one.killed_by is None for one in verdicts)
    print(f"mutations: {len(verdicts) - survived} of {len(verdicts)} killed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
