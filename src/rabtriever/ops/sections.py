"""What each section of params.yaml has to be: all are checked before the first stage, not when its turn comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_type_hints

from rabtriever.core.settings import load_params
from rabtriever.data import stage as prepare
from rabtriever.evaluation import stage as evaluate
from rabtriever.ops.promotion import GateParams
from rabtriever.training.stages import (
    backbone,
    build_index,
    distill_student,
    embed_corpus,
    mine_candidates,
    train_biencoder,
    train_teacher,
)

_STAGES = (
    prepare,
    backbone,
    train_biencoder,
    train_teacher,
    embed_corpus,
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
        ParamsError: an entry that is unknown, missing, of the wrong type or out of range.
    """
    for section in sections:
        load_params(SECTIONS[section], section, path)
