"""Runs a study, trial by trial. A finished trial is a file of research/results and is never run again.

python -m research.study llm                          # whatever of the study `llm` is not finished
python -m research.study llm --only household,ecare   # of these sets alone
python -m research.study llm --summary-only           # summary, page and picture from the finished trials
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_write, read_json
from rabtriever.core.settings import ParamsError
from research.definition import Study, Trial, read_study
from research.summary import write_summary


def finished(study: Study, trial: Trial) -> dict[str, Any] | None:
    """The content of a trial's file; None where there is none, or settings have changed since."""
    path = study.results / f"{trial}.json"
    found = read_json(path) if path.is_file() else None
    return found if found and found["settings"] == study.conditions(trial) else None


def run_study(study: Study, only: Collection[str] = ()) -> list[str]:
    """Runs the trials that are not finished; the names of those that failed. The others are run all the same.

    Args:
        study: the definition.
        only: names of sets; all when empty.

    Raises:
        ParamsError: a set or a system that there is not.
    """
    from research.trial import check_systems

    if unknown := sorted(set(only) - set(study.sets)):
        raise ParamsError(f"study {study.name} has no set {unknown[0]!r}, expected of {', '.join(study.sets)}")
    check_systems(study)
    failed = []
    for trial in study.trials():
        source = study.root / study.sets[trial.set].source
        if (only and trial.set not in only) or finished(study, trial):
            continue
        if not source.is_dir():
            print(f"{trial}: left out, there is no folder {source}; `make data FROM=folder` copies it", flush=True)
        elif not _attempt(study, trial):
            failed.append(str(trial))
    return failed


def _attempt(study: Study, trial: Trial) -> bool:
    """Runs a trial and writes its file; False, after saying why, if it fails."""
    from research.trial import run_trial

    print(f"{trial}: started", flush=True)
    try:
        content = run_trial(study, trial)
    except Exception:  # whatever one trial dies of, the others go on
        traceback.print_exc()
        print(f"{trial}: failed, as told above; the next run tries it again", flush=True)
        return False
    with atomic_write(study.results / f"{trial}.json") as file:
        file.write(_by_line(content))
    print(f"{trial}: finished, {sum(content['seconds'].values()) / 60:.0f} minutes of work", flush=True)
    return True


def _by_line(content: dict[str, Any]) -> str:
    """JSON with a line for each key and each system, so that a change is a small one."""
    rows = [f'"{system}": {json.dumps(row)}' for system, row in content["per_query"].items()]
    lines = [f'"{key}": {json.dumps(value)}' for key, value in content.items() if key != "per_query"]
    return "{" + ",\n".join([*lines, '"per_query": {\n' + ",\n".join(rows) + "}"]) + "}\n"


def main(arguments: Sequence[str] | None = None, root: str | Path = ".") -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m research.study", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a study of research/studies, or a YAML file")
    parser.add_argument("--only", metavar="SETS", default="", help="names of sets, separated by commas")
    parser.add_argument("--summary-only", action="store_true", help="run nothing")
    parsed = parser.parse_args(arguments)
    try:
        study = read_study(parsed.name, root)
        study.work.mkdir(parents=True, exist_ok=True)
        with FileLock(study.work / ".lock", timeout=0):
            only = [name for name in parsed.only.split(",") if name]
            failed = [] if parsed.summary_only else run_study(study, only)
            found = {trial: content for trial in study.trials() if (content := finished(study, trial))}
            write_summary(study, found)
    except Timeout:
        print(f"study: another process is running {parsed.name}; wait for its end", file=sys.stderr)
        return 1
    except (ValueError, OSError, ArtifactMismatchError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    print(f"study: {len(found)} of {len(study.trials())} trials are finished", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
