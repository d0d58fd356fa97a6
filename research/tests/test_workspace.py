"""The workspace: which steps run again after a kill, a change of settings, or in a variant."""

from __future__ import annotations

import itertools
import types
from pathlib import Path
from typing import NamedTuple

import pytest

from rabtriever.core.artifacts import atomic_folder, write_manifest
from rabtriever.core.seeding import SeedParams
from research import workspace as module
from research.workspace import Step, Workspace, pipeline_steps, run_stage
from tests.closure import ROOT

SETTINGS = {"first": {"text": "a"}, "second": {"text": "b"}, "third": {"text": "c"}}


class Work:
    """Three steps, each writing a folder from the one before and its section; notes what ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.killed = ""

    def steps(self, settings: dict) -> list[Step]:
        chain = [("first", ()), ("second", ("out/first",)), ("third", ("out/second",))]
        return [
            Step(name, (name,), inputs, (f"out/{name}",), lambda name=name: self.run(name, settings))
            for name, inputs in chain
        ]

    def run(self, name: str, settings: dict) -> None:
        self.ran.append(name)
        with atomic_folder(Path("out") / name) as target:
            (target / "text").write_text(name + settings[name]["text"])
            write_manifest(target, "toy", {}, {})
        if self.killed == name:
            raise KeyboardInterrupt

    def workspace(self, folder: Path, base: Workspace | None = None, **texts: str) -> Workspace:
        settings = {**SETTINGS, **{name: {"text": text} for name, text in texts.items()}}
        return Workspace(folder, settings, self.steps(settings), base)


@pytest.fixture
def work() -> Work:
    return Work()


def test_finished_steps_are_not_done_again(work: Work, tmp_path: Path):
    """A study that is started again must not train what it has."""
    work.workspace(tmp_path).make("out/third")
    work.workspace(tmp_path).make("out/third")
    assert work.ran == ["first", "second", "third"]


def test_a_killed_step_is_done_again_and_those_before_it_are_not(work: Work, tmp_path: Path):
    """A step killed after it wrote its output, but before it was known to be whole, must not pass for done."""
    work.killed = "second"
    with pytest.raises(KeyboardInterrupt):
        work.workspace(tmp_path).make("out/third")
    work.killed = ""
    work.workspace(tmp_path).make("out/third")
    assert work.ran == ["first", "second", "second", "third"]


def test_a_changed_setting_redoes_its_step_and_what_changes_with_it(work: Work, tmp_path: Path):
    """A figure of other settings than the file has would be published as theirs."""
    work.workspace(tmp_path).make("out/third")
    work.workspace(tmp_path, third="other").make("out/third")
    assert work.ran[3:] == ["third"]
    work.workspace(tmp_path, first="other", third="other").make("out/third")
    assert work.ran[4:] == ["first", "second"]  # what the third reads came out the same


def test_a_changed_output_redoes_what_reads_it(work: Work, tmp_path: Path):
    """Prevents a stage fed with the artefact of another run."""
    workspace = work.workspace(tmp_path)
    workspace.make("out/third")
    with atomic_folder(tmp_path / "out/first") as target:
        (target / "text").write_text("foreign")
        write_manifest(target, "toy", {}, {})
    work.workspace(tmp_path).make("out/third")
    assert work.ran[3:] == ["first"]


def test_a_variant_links_what_is_alike_and_leaves_its_base_alone(work: Work, tmp_path: Path):
    """An ablation that wrote through a link would spoil the trial it is compared with."""
    base = work.workspace(tmp_path / "base")
    base.make("out/third")
    variant = work.workspace(tmp_path / "base/variants/one", base, second="other")
    variant.make("out/third")
    assert work.ran[3:] == ["second", "third"]
    assert variant.path("out/first").is_symlink() and not variant.path("out/second").is_symlink()
    assert base.path("out/second/text").read_text() == "secondb"
    assert variant.path("out/second/text").read_text() == "secondother"
    work.workspace(tmp_path / "base/variants/one", work.workspace(tmp_path / "base"), second="other").make("out/third")
    assert len(work.ran) == 5, "a finished variant was redone"


def test_a_variant_follows_a_base_that_was_made_anew(work: Work, tmp_path: Path):
    """A link whose stamp is of an older base would count as another artefact for ever."""
    base = work.workspace(tmp_path / "base")
    base.make("out/third")
    work.workspace(tmp_path / "variant", base, third="other").make("out/third")
    base = work.workspace(tmp_path / "base", second="new")
    base.make("out/third")
    variant = work.workspace(tmp_path / "variant", base, second="new", third="other")
    variant.make("out/third")
    assert variant.path("out/second").is_symlink() and variant.path("out/second/text").read_text() == "secondnew"


def test_seconds_are_those_of_what_was_done_here(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hours of a study would count a linked step again for every variant."""
    monkeypatch.setattr(module.time, "perf_counter", itertools.count().__next__)  # a step takes a second
    base = work.workspace(tmp_path / "base")
    base.make("out/second")
    variant = work.workspace(tmp_path / "variant", base, second="x")
    variant.make("out/third")
    assert base.seconds() == {"first": 1, "second": 1} and variant.seconds() == {"second": 1, "third": 1}


def test_the_pipeline_is_taken_from_dvc(monkeypatch: pytest.MonkeyPatch):
    """A stage whose inputs the study does not know would not be redone when they change."""
    calls: list[object] = []
    monkeypatch.setattr(module, "run_stage", calls.append)
    names = ["prepare", "train_biencoder", "train_teacher", "mine", "distill"]
    stages = {name: types.ModuleType(name) for name in names}
    steps = {step.name: step for step in pipeline_steps(ROOT / "dvc.yaml", stages, "some/data")}
    assert list(steps) == names
    assert steps["prepare"].inputs == ["some/data"] and "data/prepared" in steps["prepare"].outputs
    assert steps["mine"].inputs == ["data/prepared", "models/teacher"]
    assert set(steps["distill"].inputs) >= {"models/teacher", "data/embeddings", "data/candidates"}
    assert steps["distill"].outputs == ["models/student"] and "predictor" in steps["distill"].sections
    for step in steps.values():
        assert not [path for path in (*step.inputs, *step.outputs) if "$" in path or path.startswith(".cache/")]
        step.run()
    assert calls == list(stages.values())


def test_a_stage_reads_the_settings_of_its_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A trial would be run with the settings of the repository."""
    (tmp_path / "params.yaml").write_text("random:\n  seed: 41\n")
    monkeypatch.chdir(tmp_path)
    stage = types.ModuleType("stage")
    stage.Sections = NamedTuple("Sections", [("random", SeedParams)])
    stage.run = lambda sections, paths, tracker: (sections.random.seed, paths.params, tracker.lightning_logger())
    assert run_stage(stage) == (41, Path("params.yaml"), False)
