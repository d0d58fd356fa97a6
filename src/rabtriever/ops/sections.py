"""What each section of params.yaml has to be: all are checked before the first stage, not when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_type_hints

from rabtriever.core.settings import ParamsError, load_params
from rabtriever.data import stage as prepare
from rabtriever.evaluation import stage as evaluate
from rabtriever.ops.promotion import GateParams
from rabtriever.training.stages import (
    build_index,
    distill_student,
    mine_candidates,
    train_biencoder,
    train_teacher,
)

_STAGES = (
    prepare,
    train_biencoder,
    train_teacher,
    mine_candidates,
    distill_student,
    build_index,
    evaluate,
)
SECTIONS = {name: kind for stage in _STAGES for name, kind in get_type_hints(stage.Sections).items()}
SECTIONS["promote"] = GateParams


def check_values(path: str | Path, sections: Iterable[str] = SECTIONS) -> None:
    """Reads sections of params.yaml as their stages will.

    Raises:
        ParamsError: an entry that is unknown, missing, of the wrong type or out of range, or one that needs another.
    """
    found = {section: load_params(SECTIONS[section], section, path) for section in sections}
    index, teacher = found.get("index"), found.get("train_teacher")
    if index is not None and teacher is not None and index.document_prior and teacher.similarity == 0:
        raise ParamsError(
            f"{path}: index.document_prior is true, but train_teacher.similarity is 0, expected above 0: the prior is "
            "added to the cosine of the score; set one of the two"
        )
