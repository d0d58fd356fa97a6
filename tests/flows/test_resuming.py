"""What a stage that was stopped goes on from: its own checkpoint, and none of another prompt's or other weights'."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, replace
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
def settings(prepared: str, prompt_params: PromptParams, make_backbone: Callable[..., Backbone]) -> None:
    """Settings for a few steps of every stage, and a model to start from in the folder `given`."""
    few = {"steps": 3, "learning_rate": 0.01, "hard_negatives": 1}
    set_params("prompt", **asdict(prompt_params))
    set_params("backbone", source="given")
    set_params("train_biencoder", **few, batch_size=3)
    set_params("train_teacher", **few, queries=3)
    make_backbone(seed=0).save(Path("given"))


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


def start(data: str, params: PromptParams, backbone: Backbone) -> str:
    """The hash of a bi-encoder for the teacher to start from, of a prompt that the settings have too."""
    set_params("prompt", **asdict(params))
    prompt = Prompt(backbone.tokenizer, params, backbone.context)
    return save_model(PATHS.biencoder, "biencoder", backbone, prompt, {"data": data}).hash


@pytest.mark.parametrize("stage", ["train_biencoder", "train_teacher"])
def test_a_training_with_another_prompt_begins_anew(
    settings: None,
    prepared: str,
    make_backbone: Callable[..., Backbone],
    prompt_params: PromptParams,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
) -> None:
    """Weights trained with one prompt that pass for those of another: what they started from has the same bytes."""
    before = start(prepared, prompt_params, make_backbone())
    stopped(stage, monkeypatch)
    assert "resuming" not in capsys.readouterr().out
    stopped(stage, monkeypatch)
    assert "resuming" in capsys.readouterr().out
    shorter = replace(prompt_params, max_query_tokens=prompt_params.max_query_tokens - 1)
    assert start(prepared, shorter, make_backbone()) == before
    run(stage)
    assert "resuming" not in capsys.readouterr().out


def test_other_weights_in_the_same_folder_are_trained_anew(
    settings: None,
    make_backbone: Callable[..., Backbone],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A model put in the place of another and not used: `dvc repro --force train_biencoder` says it is."""
    stopped("train_biencoder", monkeypatch)
    stopped("train_biencoder", monkeypatch)
    assert "resuming" in capsys.readouterr().out
    make_backbone(seed=1).save(Path("given"))
    run("train_biencoder")
    assert "resuming" not in capsys.readouterr().out
