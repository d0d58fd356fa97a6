"""The outer flow: every stale stage through DVC, then the gate, then the `champion` alias.

python -m flows.retrain                       # once, now
python -m flows.retrain --data FOLDER         # on another data set in BEIR layout
python -m flows.retrain --profile minilm      # with another backbone, and the settings that suit it
python -m flows.retrain --serve "0 3 * * 1"   # as a scheduled deployment, until stopped
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import yaml
from prefect import flow
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings

from flows.common import PARENT_FLOW_RUN, guard
from rabtriever.core import profiles
from rabtriever.core.artifacts import MANIFEST_NAME, read_json
from rabtriever.core.settings import ParamsError, check_sections, load_params, read_settings, save_param
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.preparation import PrepareParams, checked
from rabtriever.lm.model_source import check_pinned, resolve_source
from rabtriever.ops import dvc_stages, gate, registry, report
from rabtriever.ops.prefect_server import prefect_api
from rabtriever.ops.tracking import pipeline_run

_PATHS = Paths()
_GRAPH = {"rounds", "final_round"}  # read by dvc.yaml itself


@flow(name="retrain")
def retrain(data: str | None = None) -> dict[str, Any]:
    """What was decided on the retriever of the current data, code and settings, after bringing all stages up to date.

    Args:
        data: folder to take as the data set from now on; the one in params.yaml when None.

    Raises:
        StageFailed: a stage failed; the champion and all earlier outputs are as before.
        BlockingIOError: another retraining is running in this folder.
    """
    with dvc_stages.exclusive():
        check_settings()
        adopt_source(data)
        stages = dvc_stages.stale_stages()
        version = gate.challenger()
        if not stages and gate.settled(version):
            return registry.last_decision(version) or {}
        if stages:
            check_values()
        return _refresh(stages)


def check_settings() -> None:
    """Finds what is wrong in params.yaml at the start, and not when a stage comes to it after minutes.

    Raises:
        ParamsError: an unknown section, a wrong entry in `promote`, or rounds that do not follow each other.
    """
    gate.gate_params()
    settings, sections = read_settings(_PATHS.params), {section for _, section in _listed_sections()}
    check_sections(_PATHS.params, sections | _GRAPH | {"promote"})
    if "rounds" in settings:
        _check_rounds(settings)


def check_values() -> None:
    """Finds a wrong entry in a section that a stage reads; imports what the stages are made of, which takes seconds.

    Raises:
        ParamsError: an entry that is unknown, missing, of the wrong type or out of range.
    """
    from rabtriever.ops import sections

    sections.check_values(
        _PATHS.params, sorted({section for command, section in _listed_sections() if "-m flows." in command})
    )


def _listed_sections() -> list[tuple[str, str]]:
    """Command and section of params.yaml for all that the stages of dvc.yaml list."""
    stages = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    done = [stage.get("do", stage) for stage in stages]
    entries = [(stage["cmd"], entry) for stage in done for entry in stage.get("params", [])]
    return [(command, entry.split(".")[0]) for command, entry in entries if isinstance(entry, str)]


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
        ValueError: it is the pipeline's own output, which the pipeline would read and remove.
        DataContractError: the data break the contract; params.yaml is untouched.
    """
    params = load_params(PrepareParams, "prepare", _PATHS.params)
    data = data and str(Path(data).expanduser())
    if not data or Path(data).resolve() == Path(params.source).resolve():
        return
    if Path(data).resolve().is_relative_to(_PATHS.prepared.resolve()):
        raise ValueError(f"{data} is what stage prepare writes; name the folder that it was made from, or a copy of it")
    print(f"retrain: checking {data} before anything is changed", flush=True)
    checked(load_dataset(data), params)
    save_param(_PATHS.params, "prepare.source", data)
    print(f"retrain: params.yaml now has prepare.source: {data} (DATA={params.source} goes back)", flush=True)


def _refresh(stages: list[str]) -> dict[str, Any]:
    """The decision on the present retriever, after running these stages and, where it is due, the gate."""
    with pipeline_run("retrain") as run:
        for place, stage in enumerate(stages, start=1):
            print(f"\n[{place}/{len(stages)}] {stage}", flush=True)
            start = time.monotonic()
            dvc_stages.run_stage(stage, {"RABTRIEVER_PARENT_RUN": run.run_id, **_tracking_environment()})
            print(f"[{place}/{len(stages)}] {stage}: done in {time.monotonic() - start:.0f} s", flush=True)
        version = gate.challenger() or _register_here()
        decision = registry.last_decision(version) if gate.settled(version) else gate.judge(version)
        run.set_tags({"model_version": version.version, "promoted": bool(decision and decision["promoted"])})
    return decision or {}


def _register_here() -> registry.RegisteredVersion:
    """Registers a retriever that DVC took from its cache, or that another registry than this machine's knows."""
    from flows.register import register

    (register if FlowRunContext.get() else register.fn)()
    version = gate.challenger()
    if version is None:
        raise RuntimeError("models/retriever is registered under another hash than its own; this is a fault of ours")
    return version


def _tracking_environment() -> dict[str, str]:
    """What a stage's process needs to appear below this flow run in Prefect."""
    context, settings = FlowRunContext.get(), get_current_settings()
    if context is None or context.flow_run is None or not settings.api.url:
        return {}
    return {
        "PREFECT_API_URL": settings.api.url,
        "PREFECT_LOGGING_TO_API_ENABLED": str(settings.logging.to_api.enabled).lower(),
        PARENT_FLOW_RUN: str(context.flow_run.id),
    }


def run_once(data: str | None, profile: str | None = None) -> None:
    """Retrains when there is anything to do, and prints the report in any case."""
    with dvc_stages.exclusive():
        check_settings()
        adopt_profile(profile)
        adopt_source(data)
        idle = not dvc_stages.stale_stages() and gate.settled(gate.challenger())
    if idle:
        print("retrain: data, code and settings are as they were; nothing to do")
    else:
        with prefect_api():
            retrain()
    print_report()


def print_report() -> None:
    """Prints the table, the promotion, sample rankings and what to type next."""
    version = gate.challenger()
    decision = registry.last_decision(version)
    print(report.section("Evaluation", report.evaluation_table(read_json(_PATHS.reports / "evaluation.json"))))
    print(report.section("Promotion", report.promotion_text(version, decision)))
    samples = read_json(_PATHS.reports / "samples.json")
    if samples:
        print(report.section("Sample rankings (score, [grade])", report.samples_text(samples)))
    example = samples[0]["query"] if samples else registry.EXAMPLE
    print(report.section("Next", report.next_commands(example)), flush=True)


def serve(cron: str) -> None:
    """Keeps a deployment that retrains on a schedule, one run at a time, until stopped.

    Raises:
        ValueError: no Prefect server is configured; a temporary one has no scheduler that would last.
    """
    if not get_current_settings().api.url:
        raise ValueError(
            "--serve needs a Prefect server that stays; start one with `prefect server start` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    retrain.serve(name="scheduled", cron=cron, limit=1, print_starting_message=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="FOLDER", help="data set to change to, a folder in BEIR layout")
    parser.add_argument("--profile", metavar="NAME", help="profile to change to, of profiles/, or a YAML file")
    parser.add_argument("--serve", metavar="CRON", help='retrain on a schedule, such as "0 3 * * 1"')
    arguments = parser.parse_args()
    with guard("retrain"):
        if arguments.serve:
            serve(arguments.serve)
        else:
            run_once(arguments.data, arguments.profile)
