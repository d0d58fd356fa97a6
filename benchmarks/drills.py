"""Disturbs every stage of a toy project in every way, runs again, and compares the retriever with an undisturbed one.

`python benchmarks/drills.py` takes an hour or two on two cores and writes docs/evaluation/drills.json;
`python docs/update_tables.py` then redraws its tables. `--stage`, `--way` and `--missing` choose, and leave the other
rows as they are. Each drill has a project of its own in a small file system in memory, which takes root on Linux: a
disk is really full, and a store really cannot be written.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks import drill_project, drill_ways  # noqa: E402

REPORT = ROOT / "docs/evaluation/drills.json"
_WRITES = Lock()


def main() -> None:
    """Runs the chosen drills, two at a time, and ends with status 1 when one of them went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", action="append", help="stage to disturb, such as mine@0; all by default")
    parser.add_argument("--way", action="append", choices=list(drill_ways.WAYS), help="how; in all ways by default")
    parser.add_argument("--missing", action="store_true", help="only what the report lacks or has as a fault")
    parser.add_argument("--finished", type=Path, help="where the undisturbed project is, or will be kept")
    parser.add_argument("--workers", type=int, default=2, help="drills at a time, 2 by default")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("drills: the file systems of the drills take root; run this as root, in a container for example")
    with tempfile.TemporaryDirectory(prefix="drills-") as scratch:
        home = arguments.finished or Path(scratch) / "finished"
        finished = drill_project.finished(home.resolve())
        wanted = [
            (stage, way)
            for stage, way in drill_ways.drills(finished.moments)
            if stage in (arguments.stage or [stage]) and way in (arguments.way or [way])
            if not (arguments.missing and _is_sound(stage, way))
        ]
        with ThreadPoolExecutor(arguments.workers) as pool:
            rows = list(pool.map(lambda drill: _drill(finished, *drill), wanted))
    wrong = [row for row in rows if not row["sound"]]
    print(f"drills: {len(rows) - len(wrong)} of {len(rows)} as expected")
    sys.exit(1 if wrong else 0)


def _rows() -> list[dict[str, Any]]:
    """The rows of the report."""
    return json.loads(REPORT.read_text())["rows"] if REPORT.exists() else []


def _is_sound(stage: str, way: str) -> bool:
    """Whether the report has a drill, as one that went well."""
    return any(row["sound"] and (row["stage"], row["way"]) == (stage, way) for row in _rows())


def _drill(finished: drill_project.Finished, stage: str, way: str) -> dict[str, Any]:
    """The row of one drill, which is also in the report at once."""
    row = drill_ways.drill(finished, stage, way)
    with _WRITES:
        _keep(row, finished)
        print(json.dumps(row, ensure_ascii=False), flush=True)
    return row


def _keep(row: dict[str, Any], finished: drill_project.Finished) -> None:
    """Puts a row in the place of the one of the same drill; rows of drills that are no more go."""
    order = {drill: place for place, drill in enumerate(drill_ways.drills(finished.moments))}
    by_drill = {(one["stage"], one["way"]): one for one in [*_rows(), row]}
    kept = [by_drill[drill] for drill in order if drill in by_drill]
    report = {"stages": finished.stages, "drills": list(order), "rows": kept}
    REPORT.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
