"""The ablations of the small backbone, measured with the code of version 0.1, as one summary.

python -m research.mechanisms FOLDER   # FOLDER/SET-SEED/ablations/NAME.json, as the old study wrote them

Writes research/results/mechanisms/summary.json. Each ablation is compared with the very run that it started from. The
difference is base less ablation in points of nDCG@10: positive where the mechanism helps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rabtriever.core.artifacts import read_json, write_json
from research.definition import RESULTS
from research.summary import METRIC, Values, difference, paired

SYSTEMS = ("student", "teacher")


def summarise(folder: Path) -> dict[str, Any]:
    """The summary of a folder of trials in the old format.

    Raises:
        FileNotFoundError: it has no ablation.
        ValueError: the trials of an ablation have other queries.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-*/ablations/*.json")):
        trial = read_json(path)
        found.setdefault((trial["info"]["set"], trial["info"]["ablation"]), []).append(trial)
    if not found:
        raise FileNotFoundError(f"{folder} has no file SET-SEED/ablations/NAME.json; name the folder of the old study")
    sets: dict[str, dict[str, Any]] = {}
    for (name, ablation), trials in sorted(found.items()):
        if any(trial["queries"] != trials[0]["queries"] for trial in trials):
            raise ValueError(f"{name}, {ablation}: the seeds have other queries, expected the same")
        measured = [system for system in SYSTEMS if all(system in trial["per_query"] for trial in trials)]
        rows = {system: _row(trials, system) for system in measured}
        sets.setdefault(name, {})[ablation] = {"seeds": [trial["info"]["seed"] for trial in trials], **rows}
    infos = [trial["info"] for trials in found.values() for trial in trials]
    devices, spent = dict.fromkeys(info["device"] for info in infos), sum(info["spent"] for info in infos)
    return {"sets": sets, "device": "; ".join(devices), "hours": round(spent / 3600, 2)}


def _row(trials: Sequence[dict[str, Any]], system: str) -> dict[str, float]:
    base, ablation = (_by_query(trials, part, system) for part in ("start", "per_query"))
    means = {name: round(float(np.mean(list(of.values()))), 2) for name, of in (("base", base), (METRIC, ablation))}
    return {**means, **difference(paired(base, ablation))}


def _by_query(trials: Sequence[dict[str, Any]], part: str, system: str) -> Values:
    values = 100 * np.mean([trial[part][system] for trial in trials], axis=0)
    return dict(zip(trials[0]["queries"], values.tolist(), strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m research.mechanisms", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="the trials of the old study")
    parser.add_argument("--target", type=Path, default=RESULTS / "mechanisms/summary.json", help="file that is written")
    parsed = parser.parse_args(arguments)
    try:
        write_json(parsed.target, summarise(parsed.folder))
    except (ValueError, OSError) as error:
        print(f"mechanisms: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
