"""A folder in which the pipeline's stages run in process, each only when its inputs are not those of its stamp.

What a study measures is what is shipped: the stages are the flows' own functions, and what each reads and writes is
taken from dvc.yaml. A workspace may start from another one: what that one made is linked, and made anew only where
inputs differ.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_write, content_hash, read_json, write_json
from rabtriever.core.settings import read_settings
from research.definition import FORMAT
from research.overlay import Settings

_STAMPS = ".stamps"
CODE = ".cache/code/"  # what a stage of dvc.yaml depends on and a trial does not: FORMAT stands for it
_told_to_end = threading.Event()


@contextlib.contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Starts no step after SIGTERM, even if what the present handler raises is lost.

    Python drops an exception that a signal's handler raises while an object is being finalised, and a training leaves
    many to finalise. Works in the main thread.
    """
    present = signal.getsignal(signal.SIGTERM)

    def note(number: int, frame: Any) -> None:
        _told_to_end.set()
        if callable(present):
            present(number, frame)

    signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, present)


@dataclass(frozen=True)
class Step:
    """One piece of work in a workspace.

    Attributes:
        name: unique in the workspace; a stage of a round ends in `-` and its number.
        sections: what it reads of params.yaml.
        inputs: files and folders that it reads.
        outputs: files and folders that it writes, each all or nothing.
        run: does it, in the workspace's folder.
    """

    name: str
    sections: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[[], object]


def pipeline_steps(pipeline: Path, runs: Mapping[str, Callable[..., object]], settings: Settings) -> list[Step]:
    """The stages of dvc.yaml that `runs` names; a stage of every round once for each.

    Args:
        pipeline: dvc.yaml.
        runs: each stage's function; one whose command has `--round` is given that number.
        settings: name the last round and the data source.
    """
    final_round, source = settings["final_round"], settings["prepare"]["source"]
    stages = yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"]
    steps = []
    for name, stage in stages.items():
        if name not in runs:
            continue
        for number in range(final_round + 1) if "foreach" in stage else [None]:
            start = f"models/student/{number - 1}" if number else "models/teacher/manifest.json"
            values = {"item.number": number, "item.start": start, "final_round": final_round, "prepare.source": source}
            label = name if number is None else f"{name}-{number}"
            steps.append(_step(label, stage.get("do", stage), runs[name], functools.partial(_filled, values)))
    return steps


def _step(name: str, stage: Mapping[str, Any], run: Callable[..., object], fill: Callable[[str], str]) -> Step:
    written = [*stage.get("outs", []), *stage.get("metrics", [])]
    read = [fill(path) for path in stage["deps"] if not path.startswith(CODE)]
    asked = re.search(r"--round (\S+)", fill(stage["cmd"]))
    last = ("final_round",) if "${final_round}" in stage["cmd"] else ()
    return Step(
        name,
        (*stage["params"], *last),
        tuple(read),
        tuple(fill(path) for path in written),
        functools.partial(run, round=int(asked[1])) if asked else run,
    )


def _filled(values: Mapping[str, object], text: str) -> str:
    for name, value in values.items():
        text = text.replace("${" + name + "}", str(value))
    return text


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

    def make(self, *outputs: str) -> None:
        """Brings outputs up to date, and before them whatever they are made from.

        Raises:
            KeyError: an output that no step writes.
        """
        settled: set[str] = set()
        for output in outputs:
            self._settle(self._writer[output], settled)

    def path(self, output: str) -> Path:
        """Where an output lies."""
        return self.folder / output

    def seconds(self, *outputs: str) -> dict[str, float]:
        """What the steps took that the outputs were made by, also those that were done in the base."""
        names = dict.fromkeys(name for output in outputs for name in self.steps(output))
        return {name: read_json(self._stamp(name))["seconds"] for name in names}

    def reads(self, output: str) -> set[str]:
        """The sections of the settings that an output depends on."""
        return self._sections(self._writer[output])

    def _sections(self, name: str) -> set[str]:
        """Those that a step reads, and all it depends on."""
        return {section for one in self._chain(name) for section in self._steps[one].sections}

    def _chain(self, name: str) -> list[str]:
        """A step after all it depends on."""
        found: dict[str, None] = {}
        for path in self._steps[name].inputs:
            if (before := self._maker(path)) is not None:
                found.update(dict.fromkeys(self._chain(before)))
        return [*found, name]

    def _maker(self, path: str) -> str | None:
        """The step that writes a path, or the folder that it is in."""
        inside = [output for output in self._writer if path == output or path.startswith(output + "/")]
        return self._writer[inside[0]] if inside else None

    def _settle(self, name: str, settled: set[str]) -> None:
        for one in self._chain(name):
            if one not in settled and not self._current(self._steps[one]):
                self._run(self._steps[one])
            settled.add(one)

    def _run(self, step: Step) -> None:
        if _told_to_end.is_set():
            raise SystemExit(128 + signal.SIGTERM)
        self._stamp(step.name).unlink(missing_ok=True)
        inputs = self._inputs(step)
        start = time.perf_counter()
        with contextlib.chdir(self.folder):
            step.run()
        seconds = round(time.perf_counter() - start, 2)
        stamp = {"inputs": inputs, "outputs": self._outputs(step), "seconds": seconds, "own": True}
        write_json(self._stamp(step.name), stamp)

    def own_seconds(self) -> float:
        """Seconds of all steps that were really done here."""
        stamps = (read_json(path) for path in (self.folder / _STAMPS).glob("*.json"))
        return sum(stamp["seconds"] for stamp in stamps if stamp["own"])

    def steps(self, output: str) -> list[str]:
        """The steps that an output is made by, in their order."""
        return self._chain(self._writer[output])

    def alike(self, name: str, other: Workspace) -> bool:
        """Whether a step here has the settings that it has there, and so has all that it depends on."""
        return all(self.settings[section] == other.settings[section] for section in self._sections(name))

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

        A link is never written through: every stage replaces its outputs as a whole.
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


def seconds_beside(base: Workspace, known: Collection[str], added: Mapping[str, Workspace]) -> float:
    """Seconds that more outputs would have taken in one run with others, wherever they were really made.

    Args:
        base: the workspace of that run.
        known: its outputs there.
        added: the others, each with the workspace that it was made in. What has the settings of the base counts once,
            and not at all where what is known takes it too.
    """
    done = {step for output in known for step in base.steps(output)}
    found: dict[tuple[str, Path], float] = {}
    for output, workspace in added.items():
        for step, seconds in workspace.seconds(output).items():
            alike = workspace.alike(step, base)
            if not alike or step not in done:
                found[step, base.folder if alike else workspace.folder] = seconds
    return sum(found.values())


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
