"""What a stage that was stopped goes on from: its own checkpoint, and none of another prompt's or other weights'."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.stages import Paths
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.training.model_io import save_model
from tests.toy import set_params

PATHS = Paths()


@pytest.fixture
def settings(prepared: str) -> None:
    """Settings for a few steps of every stage."""
    few = {"steps": 3, "learning_rate": 0.01}
    for section in ("warmup", "train_biencoder"):
        set_params(section, **few, batch_size=3, hard_negatives=1, mining_depth=4)
    set_params("train_teacher", **few, queries=3, random_negatives=1, reader_steps=0, dpo_steps=0, fit_depth=4)
    set_params("polish", steps=0)


def stopped(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a stage that is stopped when it has trained and not yet saved."""

    def stop(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(importlib.import_module(f"rabtriever.training.stages.{stage}"), "save_model", stop)
        run(stage)


def run(stage: str) -> None:
    """Runs a stage."""
    getattr(importlib.import_module(f"flows.{stage}"), stage).fn()


@pytest.mark.parametrize(
    ("stage", "start", "kind"),
    [("train_biencoder", PATHS.backbone, "backbone"), ("train_teacher", PATHS.biencoder, "biencoder")],
)
def test_a_training_with_another_prompt_begins_anew(
    settings: None,
    prepared: str,
    make_backbone: Callable[..., Backbone],
    prompt_params: PromptParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    start: Path,
    kind: str,
) -> None:
    """Weights trained with one prompt that pass for those of another: what they started from has the same bytes."""

    def write(**changed: Any) -> str:
        params = PromptParams(**{**asdict(prompt_params), **changed})
        set_params("prompt", **asdict(params))
        backbone = make_backbone()
        prompt = Prompt(backbone.tokenizer, params, backbone.context)
        parents = {"data": prepared, "backbone": "none"}
        return save_model(start, kind, backbone, prompt, parents).hash

    before = write()
    stopped(stage, monkeypatch)
    assert "resuming" not in capsys.readouterr().out
    stopped(stage, monkeypatch)
    assert "resuming" in capsys.readouterr().out
    assert write(max_query_tokens=prompt_params.max_query_tokens - 1) == before
    run(stage)
    assert "resuming" not in capsys.readouterr().out


def test_other_weights_in_the_same_folder_are_trained_anew(
    settings: None,
    make_backbone: Callable[..., Backbone],
    prompt_params: PromptParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model that was put in the place of another and is not used: `dvc repro --force backbone` says it is."""
    set_params("prompt", **asdict(prompt_params))
    set_params("backbone", source="given")
    make_backbone(seed=0).save(Path("given"))
    stopped("backbone", monkeypatch)
    stopped("backbone", monkeypatch)
    assert "resuming" in capsys.readouterr().out
    make_backbone(seed=1).save(Path("given"))
    run("backbone")
    assert "resuming" not in capsys.readouterr().out
