"""params.yaml as a retraining reads it before the first stage, and as `--data` and `--profile` change it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rabtriever.core import profiles
from rabtriever.core.progress import at_work
from rabtriever.core.settings import ParamsError, check_sections, flat, load_params, nearest, read_settings, save_param
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.preparation import PrepareParams, checked
from rabtriever.lm.model_source import check_pinned, resolve_source
from rabtriever.ops import environment, gate

_PATHS = Paths()
_PIPELINE = Path("dvc.yaml")


def check_settings() -> None:
    """Finds what is wrong in params.yaml and around it at the start, and not when a stage comes to it after minutes.

    Raises:
        ParamsError: an unknown section, a wrong entry in `promote`, or a value that dvc.yaml reads and that is
            missing.
        OSError: a folder that the stages write to is a file or not writable, or DVC's own folder is missing.
        ValueError: such a folder leads out of the repository.
    """
    gate.gate_params()
    settings, sections = read_settings(_PATHS.params), {section for _, section in _listed_sections()}
    check_sections(_PATHS.params, sections | {"promote"})
    known = {**settings, **flat(settings)}
    for name in _interpolated():
        if name not in known:
            raise ParamsError(f"{_PATHS.params}: no key {name}{nearest(name, known)}, which dvc.yaml reads; add it")
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
    """What dvc.yaml says of each stage."""
    stages = read_settings(_PIPELINE).get("stages")
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise ParamsError(f"{_PIPELINE}: stages is {stages!r}, expected a mapping of stages; restore the file")
    return list(stages.values())


def _listed_sections() -> list[tuple[str, str]]:
    """Command and section of params.yaml for all that the stages of dvc.yaml list."""
    entries = [(stage["cmd"], entry) for stage in _stages() for entry in stage.get("params", [])]
    return [(command, entry.split(".")[0]) for command, entry in entries if isinstance(entry, str)]


def _outputs() -> list[str]:
    """Paths that the stages write and DVC files."""
    entries = [one for stage in _stages() for kind in ("outs", "metrics", "plots") for one in stage.get(kind, [])]
    detailed = [entry if isinstance(entry, dict) else {entry: {}} for entry in entries]
    paths = [path for entry in detailed for path, how in entry.items() if how.get("cache", True)]
    return list(dict.fromkeys(paths))


def _interpolated() -> set[str]:
    """Keys of params.yaml whose values DVC puts into dvc.yaml."""
    return set(re.findall(r"(?<!\\)\$\{\s*([\w.]+)\s*\}", _PIPELINE.read_text(encoding="utf-8")))
