"""Brings every stale stage up to date through DVC, then decides whether the new retriever becomes the champion.

python -m flows.retrain                       # once, now
python -m flows.retrain --data FOLDER         # on another data set in BEIR layout
python -m flows.retrain --profile minilm      # with another backbone, and the settings that suit it
python -m flows.retrain --serve "0 3 * * 1"   # as a scheduled deployment, until stopped
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections import deque
from typing import Any

from prefect import flow
from prefect.context import FlowRunContext
from prefect.settings import get_current_settings
from prefect.states import Completed, Failed, State

from flows.common import PARENT_FLOW_RUN, guard
from rabtriever.core.artifacts import read_json
from rabtriever.core.stages import Paths
from rabtriever.ops import dvc_stages, gate, inbox, processes, registry, report, verify
from rabtriever.ops.estimate import in_words
from rabtriever.ops.notify import failures_told, tell
from rabtriever.ops.pipeline_settings import adopt_profile, check_settings, check_values
from rabtriever.ops.prefect_server import check_api, prefect_api
from rabtriever.ops.retries import retry_killed
from rabtriever.ops.run_display import RunDisplay
from rabtriever.ops.tracking import PARENT_RUN, pipeline_run
from rabtriever.ops.verdict import Outcome, Verdict

_PATHS = Paths()


def run_once(data: str | None, profile: str | None = None) -> None:
    """Retrains when there is anything to do, and prints the report in any case."""
    start = time.monotonic()
    with failures_told():
        with dvc_stages.exclusive():
            check_settings()
            verify.check_files()
            adopt_profile(profile)
            inbox.adopt(data)
            processes.sweep_runs()
            idle = not dvc_stages.stale_stages() and gate.settled(gate.challenger())
        if idle:
            verify.check_answer()
            print("retrain: data, code and settings are as they were; nothing to do")
            tell(_nothing_to_do(gate.challenger()))
        else:
            with prefect_api():
                retrain()
    print_report()
    print(f"\nretrain: done in {in_words(time.monotonic() - start)}", flush=True)


def serve(cron: str) -> None:
    """Keeps a deployment that retrains on a schedule, one run at a time, until stopped.

    Raises:
        ValueError: no Prefect server is configured; a temporary one has no scheduler that would last.
        ConnectionError: the configured one does not answer.
    """
    if not get_current_settings().api.url:
        raise ValueError(
            "--serve needs a Prefect server that stays; start one with `prefect server start` and set "
            "PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    check_api()
    retrain.serve(name="scheduled", cron=cron, limit=1, print_starting_message=True)


@flow(name="retrain", on_crashed=[retry_killed])
def retrain(data: str | None = None) -> State[dict[str, Any]]:
    """What was decided on the retriever of the current data, code and settings, after bringing all stages up to date.

    The state is named by the outcome: Promoted, Refused, Nothing to do, Failed or Data quarantined.

    Args:
        data: folder, or `irds:` address, to take as the data set from now on; the one in params.yaml when None.

    Raises:
        StageFailed: a stage failed; the champion and all earlier outputs are as before.
        BlockingIOError: another retraining is running in this folder.
    """
    try:
        verdict = bring_up_to_date(data)
    except inbox.DataQuarantined as error:
        return Failed(name=str(error.verdict.outcome), message=str(error), data=error)
    return Completed(name=str(verdict.outcome), message=verdict.line, data=dict(verdict.decision))


def bring_up_to_date(data: str | None = None) -> Verdict:
    """How a retraining ended; with or without Prefect, and told to whoever is to be told.

    Args:
        data: folder, or `irds:` address, to take as the data set from now on; the one in params.yaml when None.

    Raises:
        DataQuarantined: the data break the contract; they were set aside, and the champion is as before.
        StageFailed: a stage failed; the champion and all earlier outputs are as before.
        BlockingIOError: another retraining is running in this folder.
    """
    with failures_told(), dvc_stages.exclusive():
        check_settings()
        verify.check_files()
        inbox.adopt(data)
        processes.sweep_runs()
        stages = dvc_stages.stale_stages()
        version = gate.challenger()
        if not stages and gate.settled(version):
            verify.check_answer()
            verdict = _nothing_to_do(version)
        else:
            if stages:
                check_values()
            verdict = _refresh(stages)
    tell(verdict)
    return verdict


def _refresh(stages: list[str]) -> Verdict:
    """The verdict on the present retriever, after running these stages and, where it is due, the gate."""
    with pipeline_run("retrain") as run:
        run.set_tags({processes.PROCESS_TAG: processes.identity()})
        environment = {PARENT_RUN: run.run_id, **_prefect_environment()}
        with RunDisplay(stages) as display:
            for stage in stages:
                display.begin(stage)
                display.end(_run(stage, environment, display))
        version = gate.challenger() or _register_here()
        verdict = _nothing_to_do(version) if gate.settled(version) else Verdict.of(gate.judge(version))
        promoted = bool(verdict.decision.get("promoted"))
        run.set_tags({"model_version": version.version, "promoted": promoted, "outcome": str(verdict.outcome)})
    return verdict


def _run(stage: str, environment: dict[str, str], display: RunDisplay) -> bool:
    """Whether the stage's command ran; where the data are why it failed, they are set aside."""
    if not dvc_stages.is_stale(stage):  # it follows a stage that made the same again
        return False
    heard = _Heard(sys.stderr)
    try:
        with contextlib.redirect_stderr(heard):  # type: ignore[type-var]
            return dvc_stages.run_stage(stage, environment, display.progress)
    except dvc_stages.StageFailed as error:
        if stage == "prepare":
            inbox.check_source()
        said = "".join(heard.last).strip()
        error.verdict = Verdict(Outcome.FAILED, f"stage {stage!r} failed: {said}" if said else str(error))
        raise


class _Heard:
    """A stream that remembers the last lines written: those who are told of a failure do not see the screen."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.last = stream, deque(maxlen=6)

    def write(self, text: str) -> int:
        self.last.append(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _nothing_to_do(version: registry.RegisteredVersion) -> Verdict:
    """The verdict on a version that was decided on before, with that decision."""
    decision = registry.last_decision(version) or {}
    reason = f"{version} is the retriever of these data, code and settings"
    if decision:
        reason += f"; it was {'promoted' if decision['promoted'] else 'refused'}: {decision['reason']}"
    return Verdict(Outcome.NOTHING_TO_DO, reason, decision)


def _prefect_environment() -> dict[str, str]:
    """What a stage's process needs to appear below this flow run in Prefect."""
    context, settings = FlowRunContext.get(), get_current_settings()
    if context is None or context.flow_run is None or not settings.api.url:
        return {}
    return {
        "PREFECT_API_URL": settings.api.url,
        "PREFECT_LOGGING_TO_API_ENABLED": str(settings.logging.to_api.enabled).lower(),
        PARENT_FLOW_RUN: str(context.flow_run.id),
    }


def _register_here() -> registry.RegisteredVersion:
    """Registers a retriever that DVC took from its cache, or that another registry than this machine's knows."""
    from flows.register import register

    (register if FlowRunContext.get() else register.fn)()
    version = gate.challenger()
    if version is None:
        raise RuntimeError(
            "models/retriever was registered under another hash than its own; please report this bug of rabtriever"
        )
    return version


def print_report() -> None:
    """Prints the table, the promotion, sample rankings, where the results are and what to type next."""
    version = gate.challenger()
    decision = registry.last_decision(version)
    samples = read_json(_PATHS.reports / "samples.json")
    example = samples[0]["query"] if samples else registry.EXAMPLE
    sections = {
        "Evaluation": report.evaluation_table(read_json(_PATHS.reports / "evaluation.json")),
        "Promotion": report.promotion_text(version, decision),
        "Sample rankings (score, [grade])": report.samples_text(samples),
        "Results": report.results_text(version, _PATHS),
        "Next": report.next_commands(example),
    }
    for title, text in sections.items():
        if text:
            print(report.section(title, text), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("--data", metavar="FOLDER", help="data set to change to, a folder in BEIR layout or irds:ID")
    parser.add_argument("--profile", metavar="NAME", help="profile to change to, of profiles/, or a YAML file")
    parser.add_argument("--serve", metavar="CRON", help='retrain on a schedule, such as "0 3 * * 1"')
    arguments = parser.parse_args()
    with guard("retrain"):
        if arguments.serve:
            serve(arguments.serve)
        else:
            run_once(arguments.data, arguments.profile)
