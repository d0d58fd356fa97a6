"""What a study has measured so far, what is still to do, in which order, and how long it may take."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rabtriever.artifacts import atomic_write, read_json
from rabtriever.overlay import differences
from rabtriever.study import FAILURE, PER_QUERY, RESULT, Cell, Study

# what an ablation does again: the stages from the first that its settings change; other sections change everything
_STAGES = ("backbone", "train_biencoder", "train_teacher", "embed_corpus", "mine", "distill")
_FIRST_STAGE = {
    "train_biencoder": 1,
    "train_teacher": 2,
    "polish": 2,
    "mine": 4,
    "final_round": 4,
    "predictor": 5,
    "distill": 5,
}


@dataclass(frozen=True)
class CellResult:
    """What a finished cell measured.

    Attributes:
        info: the content of cell.json.
        per_query: nDCG@10 from 0 to 1 by system and query.
    """

    info: dict[str, Any]
    per_query: dict[str, dict[str, float]]


def read_results(study: Study, committed: bool = True) -> tuple[dict[Cell, CellResult], dict[Cell, str]]:
    """The finished cells of a study, and why each other one is missing.

    A cell that was run here goes before a committed one. An ablation counts only beside the very figures that it
    started from: those of another machine differ by chance.

    Args:
        study: the definition.
        committed: whether cells that others have finished and committed count.
    """
    finished: dict[Cell, CellResult] = {}
    missing: dict[Cell, str] = {}
    present = study.present()
    for cell in study.cells():
        known = [_read_here(study, cell), _read_committed(study, cell) if committed and study.publish else None]
        found = [one for one in known if one is not None]
        changes = [_changes(study, cell, one, finished) for one in found]
        if [] in changes:
            finished[cell] = found[changes.index([])]
        elif changes:
            missing[cell] = f"was run with other settings: {'; '.join(changes[0])}"
        elif (study.folder / cell.folder / FAILURE).is_file():
            missing[cell] = f"failed: {read_json(study.folder / cell.folder / FAILURE)['message']}"
        else:
            missing[cell] = "not run yet" if cell.set in present else "its data are not there"
    return finished, missing


def _changes(study: Study, cell: Cell, found: CellResult, finished: Mapping[Cell, CellResult]) -> list[str]:
    """Why a result is not what the cell would give now; empty if it is."""
    changed = differences(found.info["conditions"], study.conditions(cell))
    if cell.ablation and not changed:
        base = finished.get(cell.base)
        if base is None or found.info["base"] != figures_hash(base.per_query, found.per_query):
            changed = ["the cell that it starts from was measured anew"]
    return changed


def figures_hash(per_query: Mapping[str, Mapping[str, float]], systems: Iterable[str]) -> str:
    """What tells the figures of some systems from others: 16 hex digits; of those not measured, nothing."""
    shown = {name: per_query[name] for name in systems if name in per_query}
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:16]


def _read_here(study: Study, cell: Cell) -> CellResult | None:
    folder = study.folder / cell.folder
    if not (folder / RESULT).is_file():
        return None
    return CellResult(read_json(folder / RESULT), read_json(folder / PER_QUERY))


def _read_committed(study: Study, cell: Cell) -> CellResult | None:
    path = _committed(study, cell)
    if not path.is_file():
        return None
    content = read_json(path)
    per_query = {
        name: dict(zip(content["queries"], values, strict=True)) for name, values in content["per_query"].items()
    }
    return CellResult(content["info"], per_query)


def commit_results(study: Study, finished: Mapping[Cell, CellResult]) -> None:
    """Writes finished cells where version control keeps them: one file each, nDCG@10 as lists in the queries' order."""
    for cell, one in finished.items():
        queries = list(next(iter(one.per_query.values())))
        values = {name: [found[query] for query in queries] for name, found in one.per_query.items()}
        content = {"info": one.info, "queries": queries, "per_query": values}
        with atomic_write(_committed(study, cell)) as file:
            file.write("{" + ",\n".join(f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content) + "}\n")


def _committed(study: Study, cell: Cell) -> Path:
    return study.committed / f"{cell.folder}.json"


def in_order(study: Study, missing: Iterable[Cell], finished: Mapping[Cell, CellResult]) -> list[tuple[Cell, float]]:
    """Cells to run with the seconds each may take: first seeds of all sets first, and among those the cheap ones.

    So a study that is stopped early has one seed of everything rather than every seed of something. An ablation comes
    after the cell it starts from.
    """
    waves = {(name, seed): place for name, spec in study.sets.items() for place, seed in enumerate(spec.seeds)}
    found = [(cell, estimate(study, cell, finished)) for cell in missing]
    return sorted(found, key=lambda item: (waves[item[0].set, item[0].seed], bool(item[0].ablation), item[1], item[0]))


def estimate(study: Study, cell: Cell, finished: Mapping[Cell, CellResult]) -> float:
    """Seconds that a cell may take: as other seeds took, or what its stages took in the base cell, or the file's guess.

    Args:
        study: with a guess for every set.
        cell: finished or not.
        finished: the cells measured so far.
    """
    alike = [one.info["spent"] for other, one in finished.items() if other._replace(seed=cell.seed) == cell]
    if alike:
        return sum(alike) / len(alike)
    guess = 60.0 * study.sets[cell.set].minutes
    if not cell.ablation:
        return guess
    sections = [key.split(".")[0] for key in study.ablations[cell.ablation]]
    redone = _STAGES[min(_FIRST_STAGE.get(section, 0) for section in sections) :]
    if cell.base not in finished:
        return guess * len(redone) / (2 * len(_STAGES))
    spent = finished[cell.base].info["seconds"]
    return sum(seconds for step, seconds in spent.items() if step.split("-")[0] in redone)
