"""What a study has measured so far, what is still to do, in which order, and how long it may take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rabtriever.artifacts import read_json
from rabtriever.overlay import differences
from rabtriever.study import FAILURE, PER_QUERY, RESULT, Cell, Study

# what an ablation does again: the stages from the first that its settings change; other sections change everything
_STAGES = ("backbone", "train_biencoder", "train_teacher", "embed_corpus", "mine", "distill")
_FIRST_STAGE = {"train_biencoder": 1, "train_teacher": 2, "mine": 4, "final_round": 4, "predictor": 5, "distill": 5}


@dataclass(frozen=True)
class CellResult:
    """What a finished cell measured.

    Attributes:
        info: the content of cell.json.
        per_query: nDCG@10 from 0 to 1 by system and query.
    """

    info: dict[str, Any]
    per_query: dict[str, dict[str, float]]


def read_results(study: Study) -> tuple[dict[Cell, CellResult], dict[Cell, str]]:
    """The finished cells of a study, and why each other one is missing."""
    finished, missing = {}, {}
    for cell in study.cells():
        folder = study.folder / cell.folder
        if (folder / RESULT).is_file():
            info = read_json(folder / RESULT)
            changed = differences(info["conditions"], study.conditions(cell))
            if not changed:
                finished[cell] = CellResult(info, read_json(folder / PER_QUERY))
                continue
            missing[cell] = f"was run with other settings: {'; '.join(changed)}"
        elif (folder / FAILURE).is_file():
            missing[cell] = f"failed: {read_json(folder / FAILURE)['message']}"
        else:
            missing[cell] = "not run yet"
    return finished, missing


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
