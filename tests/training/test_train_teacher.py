"""DPO of a teacher that is there already, against the teacher that is trained with it from the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from flows.common import tracked
from flows.train_teacher import train_teacher
from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.core.stages import Paths
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.training.model_io import save_model
from rabtriever.training.stages import train_teacher as stage
from tests.toy import set_params

PATHS = Paths()

PLAIN = Path("models/plain")


@pytest.fixture
def biencoder(
    prepared: str, make_backbone: Callable[..., Backbone], prompt_params: PromptParams
) -> Callable[[int], None]:
    """A folder as train_biencoder leaves it, with settings for a few steps of every phase; it writes another model."""
    set_params("prompt", **asdict(prompt_params))
    shared = {"steps": 3, "queries": 3, "learning_rate": 0.01}
    set_params("train_teacher", **shared, random_negatives=1, dpo_beta=0.5, dpo_learning_rate=0.01, fit_depth=4)
    set_params("polish", **shared, pool=4, depth=2)

    def write(seed: int) -> None:
        backbone = make_backbone(seed=seed)
        prompt = Prompt(backbone.tokenizer, prompt_params, backbone.context)
        save_model(PATHS.biencoder, "biencoder", backbone, prompt, {"data": prepared, "backbone": "none"})

    write(0)
    return write


@pytest.mark.parametrize("polish_steps", [0, 3])
@pytest.mark.parametrize("reader_steps", [0, 3])
def test_dpo_goes_on_from_a_teacher_as_if_it_had_been_asked_for_before(
    biencoder: Callable[[int], None], reader_steps: int, polish_steps: int
) -> None:
    """A row `teacher_dpo` of states that were polished before, of other candidates, or of another fit."""
    set_params("polish", steps=polish_steps)
    set_params("train_teacher", reader_steps=reader_steps, dpo_steps=0)
    plain = train_teacher.fn()
    PATHS.teacher.rename(PLAIN)
    set_params("train_teacher", dpo_steps=3)
    wanted = train_teacher.fn()
    assert wanted != plain
    assert tracked(stage, "train_teacher", start=PLAIN) == wanted
    assert read_manifest(PATHS.teacher, "teacher").hash == wanted and read_manifest(PLAIN, "teacher").hash == plain


def test_dpo_refuses_a_teacher_of_another_bi_encoder(biencoder: Callable[[int], None]) -> None:
    """Hard negatives of one model for the reader of another."""
    set_params("train_teacher", reader_steps=0, dpo_steps=0)
    train_teacher.fn()
    PATHS.teacher.rename(PLAIN)
    biencoder(1)
    with pytest.raises(ArtifactMismatchError, match="biencoder"):
        tracked(stage, "train_teacher", start=PLAIN)
