"""The workspace: which steps run again after a kill, a change of settings, or in a variant."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from rabtriever.core.artifacts import atomic_folder, write_manifest
from research import workspace as module
from research.workspace import Step, Workspace, pipeline_steps
from tests.closure import ROOT

SETTINGS = {"first": {"text": "a"}, "second": {"text": "b"}, "third": {"text": "c"}, "final_round": 1}


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
    work.workspace(tmp_path).make("out/third", "out/first")
    assert work.ran == ["first", "second", "third"]


def test_a_killed_step_is_done_again_and_those_before_it_are_not(work: Work, tmp_path: Path):
    """A step killed after it wrote its output, but before it was known to be whole, must not pass for done."""
    work.killed = "second"
    with pytest.raises(KeyboardInterrupt):
        work.workspace(tmp_path).make("out/third")
    work.killed = ""
    work.workspace(tmp_path).make("out/third")
    assert work.ran == ["first", "second", "second", "third"]


def test_no_step_starts_after_sigterm(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A SIGTERM that lands while an object is finalised is swallowed there, and the study would go on for hours."""
    monkeypatch.setattr(module, "_told_to_end", threading.Event())
    present = signal.signal(signal.SIGTERM, lambda *_: None)  # as if its exception had been lost
    try:
        with module.heeding_sigterm():
            workspace = work.workspace(tmp_path)
            workspace.make("out/first")
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(SystemExit, match="143"):
                workspace.make("out/second")
    finally:
        signal.signal(signal.SIGTERM, present)
    assert work.ran == ["first"]


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
    assert set(variant.seconds("out/third")) == {"first", "second", "third"}
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


def test_what_more_outputs_cost_is_what_one_run_would_have_taken(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Hours of a study would grow by every step that was done again elsewhere, or a changed one would be free."""
    monkeypatch.setattr(module.time, "perf_counter", itertools.count().__next__)  # a step takes a second
    base = work.workspace(tmp_path / "base")
    base.make("out/first")
    wide = work.workspace(tmp_path / "wide", base, second="x")
    wide.make("out/third")
    assert module.seconds_beside(base, ["out/first"], {"out/third": wide}) == 2
    assert module.seconds_beside(base, ["out/third"], {"out/third": wide}) == 2, "changed, so not what is known"
    assert module.seconds_beside(base, [], {"out/third": wide}) == 3
    apart = work.workspace(tmp_path / "apart", third="x")
    apart.make("out/third")
    base.make("out/second")
    both = {"out/second": base, "out/third": apart}
    assert module.seconds_beside(base, ["out/first"], both) == 2, "the second step is the same, and counts once"


def test_what_an_output_reads_is_known(work: Work, tmp_path: Path):
    """Decides which systems an ablation changes."""
    workspace = work.workspace(tmp_path)
    assert workspace.reads("out/second") == {"first", "second"}


def test_the_pipeline_is_taken_from_dvc():
    """A stage whose inputs the study does not know would not be redone when they change."""
    settings = {"final_round": 2, "prepare": {"source": "some/data"}}
    names = ["prepare", "mine", "distill", "build_index", "evaluate"]
    calls: list[tuple] = []
    runs = {name: lambda round=None, name=name: calls.append((name, round)) for name in names}
    steps = {step.name: step for step in pipeline_steps(ROOT / "dvc.yaml", runs, settings)}
    assert list(steps) == ["prepare", *(f"mine-{r}" for r in range(3)), *(f"distill-{r}" for r in range(3)),
                           "build_index", "evaluate"]  # fmt: skip
    assert steps["prepare"].inputs == ("some/data",)
    assert "models/teacher/manifest.json" in steps["mine-0"].inputs
    assert {"models/student/1", "data/candidates/2"} <= set(steps["distill-2"].inputs)
    assert "models/student/2" in steps["build_index"].inputs and "final_round" in steps["build_index"].sections
    assert "reports/evaluation.json" in steps["evaluate"].outputs
    for step in steps.values():
        assert not [path for path in (*step.inputs, *step.outputs) if "$" in path or path.startswith(".cache/")]
        step.run()
    assert calls == [("prepare", None), *(("mine", r) for r in range(3)), *(("distill", r) for r in range(3)),
                     ("build_index", 2), ("evaluate", None)]  # fmt: skip
