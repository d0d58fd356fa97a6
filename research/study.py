"""The study: data sets x systems x seeds, and ablations, trial by trial; finished trials are never done again.

python -m research.study cpu                             # whatever of the study `cpu` is not finished
python -m research.study cpu --further                   # and of what it leaves to those who have the time
python -m research.study cpu --only household,metatool   # of these sets alone
python -m research.study cpu --summary-only              # summary and page from the finished trials
python -m research.study cpu --afresh                    # measure again here what others have finished and committed
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext

from flows.common import guard
from rabtriever.core.artifacts import atomic_folder, read_json, write_json
from rabtriever.core.settings import ParamsError
from rabtriever.core.stages import Paths
from rabtriever.evaluation.plots import draw_complexity
from rabtriever.ops.prefect_server import prefect_api
from rabtriever.ops.tracking import pipeline_run
from research import plots, update_log
from research import summary as study_summary
from research.definition import Study, Trial, read_study, without_idle
from research.finished import commit_results, in_order, read_groups, read_results
from research.process_pool import marked, process_pool
from research.scheduler import Scheduler

PATHS = Paths()

TARGET = PATHS.reports / "study"
COMPLEXITY = "complexity.json"


class TrialsFailed(ChildProcessError):
    """Some trials failed; each has been named as it did, and the summary lists them."""


@flow(name="study")
def study(name: str, only: Sequence[str] = (), afresh: bool = False, further: bool = False) -> dict[str, Any]:
    """The summary, after running every trial that is not finished.

    Args:
        name: a study of research/studies, or a YAML file.
        only: sets to run, by name or by the name of their data; all when empty.
        afresh: a trial of which anything was measured elsewhere and committed is not finished.
        further: whether to run the trials of the study's `further` too.

    Raises:
        TrialsFailed: some did; the others were run all the same.
        BlockingIOError: another process is running the study.
    """
    definition = read_study(name)
    with _exclusive(definition):
        failed = _run_trials(definition, _todo(definition, only, afresh, further), afresh)
        summary = summarise(definition, afresh)
    if failed:
        raise TrialsFailed(f"{len(failed)} failed, as told above, and will be tried again by the next run")
    return summary


@task(name="trial", cache_policy=NO_CACHE)
def trial(definition: Study, where: str, seed: int, ablation: str, whole: bool) -> None:
    """Runs one trial of a study.

    Args:
        definition: the study as it was when it was started; its files may be edited meanwhile.
        where: the trial's set.
        seed: its seed.
        ablation: empty for the base trial.
        whole: measure all of it here, also what others have measured.
    """
    from research.trial import run_trial
    from research.workspace import heeding_sigterm

    one = Trial(where, seed, ablation)
    with heeding_sigterm(), _tracked(definition), pipeline_run(str(one)):
        run_trial(definition, one, whole)


@task(name="complexity", cache_policy=NO_CACHE)
def complexity(definition: Study) -> None:
    """Measures what a query costs online, with the models of one trial."""
    from research.trial import measure_complexity

    write_json(definition.folder / COMPLEXITY, measure_complexity(definition))


def _todo(definition: Study, only: Sequence[str], afresh: bool = False, further: bool = False) -> list[Trial]:
    """The trials to run of the sets chosen, in order; before an ablation the trial it starts from, if not all run here.

    Raises:
        ParamsError: a name in `only` that is neither a set's nor its data's.
    """
    known = {name: {name, spec.data} for name, spec in definition.sets.items()}
    for one in only:
        if not any(one in names for names in known.values()):
            raise ParamsError(f"study {definition.name} has no set {one!r}, expected of {', '.join(known)}")
    finished, missing = read_results(definition, not afresh)
    present = definition.present()
    chosen = [one for one in missing if one.set in present and (not only or known[one.set] & set(only))]
    chosen = [one for one in chosen if further or not definition.is_further(one)]
    found, lacking = read_results(definition, committed=False)
    here = set(found) - set(lacking)
    chosen += {one.base for one in chosen if one.ablation} - here - set(chosen)
    return [one for one, _ in in_order(definition, chosen, finished)]


def _run_trials(definition: Study, todo: Sequence[Trial], afresh: bool) -> dict[str, str]:
    """Runs trials, as many side by side as the study has workers; what failed, and why."""
    from research.trial import check_systems

    check_systems(definition)
    scheduler = Scheduler(definition, todo, afresh, run_one)
    with process_pool(scheduler.workers) as executor:
        while scheduler.left():
            while scheduler.start(executor):
                pass
            scheduler.finish()
    failed = scheduler.failed
    if _complexity_due(definition, afresh):  # when nothing else runs that would slow it down
        error = _attempt(complexity, "complexity", definition)
        if error is not None:
            print(f"complexity: failed: {error}", flush=True)
            failed["complexity"] = str(error)
    return failed


def run_one(definition: Study, one: Trial, whole: bool, mark: bool) -> str | None:
    """Runs a trial, its lines marked with its name if others print too; why it failed, None if it did not."""
    from research.trial import record_failure

    with marked(str(one)) if mark else contextlib.nullcontext():
        error = _attempt(trial, str(one), definition, *one, whole)
    if error is not None:
        record_failure(definition, one, error)
        return str(error)
    return None


def _attempt(what: Any, label: str, *arguments: object) -> Exception | None:
    """Calls a task, as a plain function where no flow is being tracked, and rescheduler its error."""
    call: Callable[..., object] = what.with_options(task_run_name=label) if FlowRunContext.get() else what.fn
    try:
        call(*arguments)
    except Exception as error:  # whatever one trial dies of, the others go on
        return error
    return None


def _complexity_due(definition: Study, afresh: bool) -> bool:
    """Whether the trial that it is measured with is finished and it is not."""
    if definition.complexity is None or _known_complexity(definition, afresh) is not None:
        return False
    finished, missing = read_results(definition, not afresh)
    return definition.complexity_trial() in set(finished) - set(missing)


def _known_complexity(definition: Study, afresh: bool) -> dict[str, Any] | None:
    """What was measured of the online cost with the present settings, here or else by others."""
    committed = [definition.committed] if definition.publish and not afresh else []
    now = definition.complexity_conditions()
    for path in (folder / COMPLEXITY for folder in (definition.folder, *committed)):
        if not path.is_file():
            continue
        found = read_json(path)  # which may tell the systems measured, too
        if without_idle({name: found["conditions"].get(name) for name in now}) == now:
            return found
    return None


@contextlib.contextmanager
def _exclusive(definition: Study) -> Iterator[None]:
    """Keeps a second process off the same trials."""
    with _locked(definition.folder) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process is running the study {definition.name}; wait for its end") from None
        yield


@contextlib.contextmanager
def _reporting(definition: Study) -> Iterator[None]:
    """Waits until no other study is writing the summary, which all of them have in one place, and the page."""
    with _locked(definition.folder.parent) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """A file to lock, open; closing it gives the lock back."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as handle:
        yield handle


@contextlib.contextmanager
def _tracked(definition: Study) -> Iterator[None]:
    """Gives all trials one MLflow store, as making one takes seconds; a store that the user has named is kept."""
    name = "MLFLOW_TRACKING_URI"
    if os.environ.get(name):
        yield
        return
    os.environ[name] = f"sqlite:///{(definition.folder / 'mlruns/mlflow.db').resolve()}"
    try:
        yield
    finally:
        del os.environ[name]


def summarise(definition: Study, afresh: bool = False) -> dict[str, Any]:
    """The summary of the finished trials, after writing it, its plots and, for a published study, trials and page."""
    finished, missing = read_results(definition, not afresh)
    cost = _known_complexity(definition, afresh) if definition.complexity else None
    command = f"make study STUDY={definition.name}"
    groups = read_groups(definition, finished)
    summary, details = study_summary.summarise(definition, finished, missing, command, groups)
    with _reporting(definition):
        _write_report(summary, details, cost)
        if definition.publish:
            whole = {one: found for one, found in finished.items() if one not in missing}  # the others as they were
            commit_results(definition, whole, groups)
            if cost is not None:
                write_json(definition.committed / COMPLEXITY, cost)
            update_log.take(definition.root)
            update_log.write_page(definition.root)
    return summary


def _write_report(summary: dict[str, Any], details: dict[str, Any], cost: dict[str, Any] | None) -> None:
    """Summary, details and plots in reports/study, all of them or none."""
    with atomic_folder(TARGET) as target:
        write_json(target / "summary.json", summary)
        if summary["sets"]:
            plots.draw_quality(summary, target / "quality.png")
            plots.draw_rivals(summary, details, target / "rivals.png")
        if summary["ablations"]:
            plots.draw_ablations(summary, details, target / "ablations.png")
        if cost is not None:
            details["complexity"] = {name: cost[name] for name in ("rows", "set", "backbone", "device")}
            draw_complexity(cost["rows"], target / "complexity.png")
        write_json(target / "details.json", details)


def report(definition: Study) -> None:
    """Prints the goals, what is missing, and where the figures are."""
    details = read_json(TARGET / "details.json")
    for goal in details["goals"]:
        state = {True: "reached", False: "not reached", None: "not measured"}[goal["reached"]]
        print(f"study: {goal['goal']}: {state} ({goal['found']})")
    for one in details["missing"]:
        print(f"study: missing: {one['trial']}: {one['why']}")
    page = " and research/log.md" if definition.publish else ""
    print(
        f"study: {len(definition.trials()) - len(details['missing'])} trials finished; see {TARGET}{page}", flush=True
    )


def run_once(
    name: str, only: Sequence[str] = (), summary_only: bool = False, afresh: bool = False, further: bool = False
) -> None:
    """Runs what is not finished, and prints the outcome in any case; without anything to run no server is started."""
    definition = read_study(name)
    _, missing = read_results(definition, not afresh)
    for absent in dict.fromkeys(one.set for one in missing if one.set not in definition.present()):
        print(f"study: {absent} is left out, as there is no folder {definition.sets[absent].source}", flush=True)
    todo = _todo(definition, only, afresh, further)
    if summary_only or not (todo or _complexity_due(definition, afresh)):
        with _exclusive(definition):
            summarise(definition, afresh)
        report(definition)
        return
    try:
        with prefect_api():
            study(name, list(only), afresh, further)
    except TrialsFailed:
        report(definition)
        raise
    report(definition)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m research.study", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="a study of research/studies, or a YAML file")
    parser.add_argument("--only", metavar="SETS", default="", help="run these sets alone, with commas between")
    parser.add_argument("--further", action="store_true", help="run what the study has put off under `further` as well")
    parser.add_argument("--summary-only", action="store_true", help="run nothing, write summary and page anew")
    parser.add_argument(
        "--afresh", action="store_true", help="measure here what is committed in research/results as well"
    )
    arguments = parser.parse_args()
    with guard("study"):
        only = [one for one in arguments.only.split(",") if one]
        run_once(arguments.name, only, arguments.summary_only, arguments.afresh, arguments.further)
