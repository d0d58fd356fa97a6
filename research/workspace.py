"""A folder in which steps run in process, each only when its inputs are not those of its stamp.

What a study measures is what is shipped: the stages are the package's own functions, and what each reads and writes is
taken from dvc.yaml. A workspace may start from another one: what that one made is linked, and made anew only where
inputs differ.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_write, content_hash, read_json, write_json
from rabtriever.core.settings import load_sections, read_settings
from rabtriever.core.stages import NoTracker, Paths
from research.definition import Settings

FORMAT = 3  # stands for the code: raise it when finished steps no longer count
_STAMPS = ".stamps"
_CODE = ".cache/code/"  # what a stage of dvc.yaml depends on and a step does not


@dataclass(frozen=True)
class Step:
    """One piece of work in a workspace.

    Attributes:
        name: unique in the workspace.
        sections: what it reads of params.yaml.
        inputs: files and folders that it reads.
        outputs: files and folders that it writes, each all or nothing.
        run: does it, in the workspace's folder.
    """

    name: str
    sections: Sequence[str]
    inputs: Sequence[str]
    outputs: Sequence[str]
    run: Callable[[], object]


def run_stage(stage: ModuleType, paths: Paths = Paths()) -> object:  # noqa: B008
    """Runs a stage of the pipeline with the settings of its params.yaml, without MLflow."""
    return stage.run(load_sections(stage.Sections, paths.params), paths, NoTracker())


def pipeline_steps(pipeline: Path, stages: Mapping[str, ModuleType], source: str) -> list[Step]:
    """The stages of dvc.yaml that `stages` names, each with its module.

    Args:
        pipeline: dvc.yaml.
        stages: by name.
        source: the raw data.
    """
    listed = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    steps = []
    for name, stage in stages.items():
        read = [path.replace("${prepare.source}", source) for path in listed[name]["deps"]]
        inputs = [path for path in read if not path.startswith(_CODE)]
        steps.append(
            Step(name, listed[name]["params"], inputs, listed[name]["outs"], functools.partial(run_stage, stage))
        )
    return steps


class Workspace:
    """A work folder with settings, and the steps that can be done in it.

    Args:
        folder: made when missing.
        settings: becomes its params.yaml.
        steps: what can be done.
        base: a workspace whose outputs are taken as they are where this one's inputs are the same.
    """

    def __init__(self, folder: Path, settings: Settings, steps: Sequence[Step], base: Workspace | None = None) -> None:
        self.folder, self.settings = folder.resolve(), settings
        self._steps = {step.name: step for step in steps}
        self._writer = {output: step.name for step in steps for output in step.outputs}
        _write_settings(self.folder / "params.yaml", settings)
        if base is not None:
            for step in steps:
                self._link(step, base)

    def make(self, output: str) -> None:
        """Brings an output up to date, and before it whatever it is made from.

        Raises:
            KeyError: an output that no step writes.
        """
        for name in self._chain(self._writer[output]):
            if not self._current(self._steps[name]):
                self._run(self._steps[name])

    def path(self, output: str) -> Path:
        """Where an output lies."""
        return self.folder / output

    def seconds(self) -> dict[str, float]:
        """What each step took that was really done here."""
        stamps = {path.stem: read_json(path) for path in sorted((self.folder / _STAMPS).glob("*.json"))}
        return {name: stamp["seconds"] for name, stamp in stamps.items() if stamp["own"]}

    def _chain(self, name: str) -> list[str]:
        """A step after all it depends on."""
        found: dict[str, None] = {}
        for path in self._steps[name].inputs:
            if path in self._writer:
                found.update(dict.fromkeys(self._chain(self._writer[path])))
        return [*found, name]

    def _run(self, step: Step) -> None:
        self._stamp(step.name).unlink(missing_ok=True)
        inputs, start = self._inputs(step), time.perf_counter()
        with contextlib.chdir(self.folder):
            step.run()
        seconds = round(time.perf_counter() - start, 2)
        stamp = {"inputs": inputs, "outputs": self._outputs(step), "seconds": seconds, "own": True}
        write_json(self._stamp(step.name), stamp)

    def _current(self, step: Step) -> bool:
        path = self._stamp(step.name)
        if not path.is_file() or not all(self.path(output).exists() for output in step.outputs):
            return False
        stamp = read_json(path)
        return stamp["inputs"] == self._inputs(step) and stamp["outputs"] == self._outputs(step)

    def _inputs(self, step: Step) -> dict[str, Any]:
        sections = {name: self.settings[name] for name in step.sections}
        hashes = {path: _identity(self.path(path)) for path in step.inputs}
        return {"format": FORMAT, "settings": sections, "hashes": hashes}

    def _outputs(self, step: Step) -> dict[str, str]:
        return {output: _identity(self.path(output)) for output in step.outputs}

    def _stamp(self, name: str) -> Path:
        return self.folder / _STAMPS / f"{name}.json"

    def _link(self, step: Step, base: Workspace) -> None:
        """Links a step's outputs from the base and takes its stamp over, unless the step was done here before.

        A link is never written through: every step replaces its outputs as a whole.
        """
        own, stamp = self._stamp(step.name), base._stamp(step.name)
        if not stamp.is_file() or (own.is_file() and read_json(own)["own"]):
            return
        for output in step.outputs:
            target, source = self.path(output), base.path(output)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink():
                target.unlink()
            if not target.exists():
                target.symlink_to(os.path.relpath(source.resolve(), target.parent))
        write_json(self._stamp(step.name), {**read_json(stamp), "own": False})


def _identity(path: Path) -> str:
    """What tells an artefact from another one: the hash in its manifest, or that of its content."""
    manifest = path / "manifest.json"
    return read_json(manifest)["hash"] if manifest.is_file() else content_hash(path)


def _write_settings(path: Path, settings: Settings) -> None:
    """Writes settings so that they read back as they are.

    Raises:
        ArtifactMismatchError: they would not.
    """
    with atomic_write(path) as file:
        yaml.safe_dump(settings, file, sort_keys=False, allow_unicode=True, width=10_000)
    if read_settings(path) != settings:
        raise ArtifactMismatchError(f"{path} does not read back as the settings it was written from; report this")
