"""params.yaml as a retraining reads it before the first stage, and as `--data` and `--profile` change it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rabtriever.core import profiles
from rabtriever.core.artifacts import MANIFEST_NAME
from rabtriever.core.progress import at_work
from rabtriever.core.settings import ParamsError, check_sections, flat, load_params, nearest, read_settings, save_param
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.preparation import PrepareParams, checked
from rabtriever.lm.model_source import check_pinned, resolve_source
from rabtriever.ops import environment, gate

_PATHS = Paths()
_PIPELINE = Path("dvc.yaml")
_GRAPH = {"rounds", "final_round"}  # read by dvc.yaml itself


def check_settings() -> None:
    """Finds what is wrong in params.yaml and around it at the start, and not when a stage comes to it after minutes.

    Raises:
        ParamsError: an unknown section, a wrong entry in `promote`, rounds that do not follow each other, or a value
            that dvc.yaml reads and that is missing.
        OSError: a folder that the stages write to is a file or not writable, or DVC's own folder is missing.
        ValueError: such a folder leads out of the repository.
    """
    gate.gate_params()
    settings, sections = read_settings(_PATHS.params), {section for _, section in _listed_sections()}
    check_sections(_PATHS.params, sections | _GRAPH | {"promote"})
    known = {**settings, **flat(settings)}
    for name in _interpolated():
        if name not in known:
            raise ParamsError(f"{_PATHS.params}: no key {name}{nearest(name, known)}, which dvc.yaml reads; add it")
    if "rounds" in settings:
        _check_rounds(settings)
    environment.check_outputs(_outputs())


def check_values() -> None:
    """Finds a wrong entry in a section that a stage reads; imports what the stages are made of, which takes seconds.

    Raises:
        ParamsError: an entry that is unknown, missing, of the wrong type or out of range.
    """
    from rabtriever.ops import sections

    read = {section for command, section in _listed_sections() if "-m flows." in command}
    sections.check_values(_PATHS.params, sorted(read))


def adopt_profile(name: str | None) -> None:
    """Writes the values of a profile into params.yaml, once they are known to fit and its model to be there.

    Args:
        name: a profile of profiles/, or the path of a YAML file; None to change nothing.

    Raises:
        FileNotFoundError: no such profile, or the package of its model is not installed.
        ValueError: a key or value that does not fit params.yaml, or a hub model without a revision.
    """
    if not name:
        return
    values = profiles.load_profile(name, _PATHS.params)
    source = str(values.get("backbone.source", ""))
    resolve_source(source)
    try:
        check_pinned(source, str(values.get("backbone.revision", "")))
    except ValueError as error:
        raise ValueError(f"profile {name}: {error}; write it into the profile's file") from error
    changes = profiles.save_profile(values, _PATHS.params)
    print(
        f"retrain: {_PATHS.params} has the values of profile {name}" + (", changed:" if changes else " already"),
        flush=True,
    )
    for key, (old, new) in changes.items():
        print(f"  {key}: {json.dumps(old)} -> {json.dumps(new)}", flush=True)


def adopt_source(data: str | None) -> None:
    """Makes a folder the data set of params.yaml, once it is known to meet the data contract.

    Args:
        data: a folder in BEIR layout, None to change nothing.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: it contains or lies in what the pipeline or DVC writes, or DVC would not see all that is below it.
        DataContractError: the data break the contract; params.yaml is untouched.
    """
    params = load_params(PrepareParams, "prepare", _PATHS.params)
    data = data and str(Path(data).expanduser())
    if not data or Path(data).resolve() == Path(params.source).resolve():
        if "prepare.source" in _interpolated():
            environment.check_source(params.source, _outputs())
        return
    environment.check_source(data, _outputs())
    print(f"retrain: checking {data} before anything is changed", flush=True)
    with at_work(f"retrain: checking {data}"):
        checked(load_dataset(data), params)
    save_param(_PATHS.params, "prepare.source", data)
    print(f"retrain: params.yaml now has prepare.source: {data} (DATA={params.source} goes back)", flush=True)


def _stages() -> list[dict[str, Any]]:
    """What dvc.yaml says of each stage; foreach and matrix keep it under `do`."""
    stages = read_settings(_PIPELINE).get("stages")
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise ParamsError(f"{_PIPELINE}: stages is {stages!r}, expected a mapping of stages; restore the file")
    return [stage.get("do", stage) for stage in stages.values()]


def _listed_sections() -> list[tuple[str, str]]:
    """Command and section of params.yaml for all that the stages of dvc.yaml list."""
    entries = [(stage["cmd"], entry) for stage in _stages() for entry in stage.get("params", [])]
    return [(command, entry.split(".")[0]) for command, entry in entries if isinstance(entry, str)]


def _outputs() -> list[str]:
    """Paths that the stages write and DVC files; that of a round ends before its number."""
    entries = [one for stage in _stages() for kind in ("outs", "metrics", "plots") for one in stage.get(kind, [])]
    detailed = [entry if isinstance(entry, dict) else {entry: {}} for entry in entries]
    paths = [path for entry in detailed for path, how in entry.items() if how.get("cache", True)]
    return list(dict.fromkeys(path.split("${")[0].rstrip("/") for path in paths))


def _interpolated() -> set[str]:
    """Keys of params.yaml whose values DVC puts into dvc.yaml."""
    names = re.findall(r"(?<!\\)\$\{\s*([\w.]+)\s*\}", _PIPELINE.read_text(encoding="utf-8"))
    return {name for name in names if name.split(".")[0] != "item"}


def _check_rounds(settings: dict[str, Any]) -> None:
    """A gap in the rounds, or a final round that is not the last, would serve an older student without a word."""
    last = settings.get("final_round")
    count = last + 1 if type(last) is int and last >= 0 else 1
    starts = [str(_PATHS.teacher / MANIFEST_NAME), *(str(_PATHS.student / str(number)) for number in range(count - 1))]
    expected = [{"number": number, "start": start} for number, start in enumerate(starts)]
    if settings["rounds"] != expected or last != count - 1:
        lines = "; ".join(f"{{number: {one['number']}, start: {one['start']}}}" for one in expected)
        raise ParamsError(
            f"{_PATHS.params}: rounds is {settings['rounds']!r} and final_round {last!r}, expected a line for each "
            f"round up to final_round, each from the one before: {lines}"
        )
