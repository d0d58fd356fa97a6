"""Running DVC's stages as child processes: which are stale, one at a time, stoppable, and put back when they fail.

DVC alone decides what is stale. It is asked inside this process, where an answer takes a fifth of a second, and runs
stages as a command, which a signal can end.
"""

from __future__ import annotations

import contextlib
import fcntl
import graphlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rabtriever.core import code
from rabtriever.core.progress import EVERY, ProgressLine
from rabtriever.ops.environment import check_folder
from rabtriever.ops.processes import child_group, signal_group, stop_group

if TYPE_CHECKING:
    from dvc.repo import Repo

LOCK = Path(".cache/retrain.lock")
_DVC = [sys.executable, "-m", "dvc"]
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_RUNS = "Running stage '"
_EXITED = re.compile(r"^ERROR: failed to reproduce '.*, exited with (-?\d+)$")
# What DVC says around each stage (its command, hints on git and remotes) would bury what the stages say; that a command
# failed has been said by the command.
_CHATTER = re.compile(
    rf"^({_RUNS}|> |(Updat|Generat)ing lock file|To track the changes with git|\tgit add|To enable auto stag"
    r"|\tdvc config core.autostage|Use `dvc push`|ERROR: failed to reproduce '[^']+': failed to run: |$)"
)


class StageFailed(ChildProcessError):
    """A stage, or DVC itself, ended with an error; what went wrong has been shown."""


@dataclass
class _Said:
    """What DVC has said of a stage: whether its command ran, and the status it failed with."""

    ran: bool = False
    status: int | None = None


@contextlib.contextmanager
def exclusive() -> Iterator[None]:
    """Makes a second retraining in the same folder fail at once instead of disturbing the first.

    Raises:
        BlockingIOError: another one is running.
        FileExistsError: a file stands where the lock's folder should.
        PermissionError: that folder is not writable.
    """
    check_folder(LOCK.parent)
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with open(LOCK, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            message = f"another retraining (process {holder}) is running here; wait for its end or stop it"
            raise BlockingIOError(message) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def stale_stages() -> list[str]:
    """Returns the stages to run, in an order that respects the graph: the changed ones and all that follow from them.

    A stage that merely follows may turn out to be up to date when its turn comes; DVC will skip it then. The stage that
    writes the code's identities counts for none: its work is done here, before DVC is asked.

    Raises:
        StageFailed: DVC cannot read the pipeline.
        ArtifactMismatchError: a file of the code is not Python.
    """
    code.write_identities()
    with _repository() as repository:
        changed = set(repository.status()) - {code.STAGE}
        if not changed:
            return []
        graph = repository.index.graph
        parents = {stage.addressing: {one.addressing for one in graph.successors(stage)} for stage in graph}
    return _affected(parents, changed)


def is_stale(stage: str) -> bool:
    """Returns whether a stage has to be run now.

    Raises:
        StageFailed: DVC cannot read the pipeline.
    """
    with _repository() as repository:
        return bool(repository.status(stage))


def _affected(parents: Mapping[str, set[str]], changed: set[str]) -> list[str]:
    """Returns the changed stages and all below them, each after those it reads from."""
    affected: dict[str, None] = {}
    for stage in graphlib.TopologicalSorter(parents).static_order():
        if stage in changed or not parents[stage].isdisjoint(affected):
            affected[stage] = None
    return list(affected)


@contextlib.contextmanager
def _repository() -> Iterator[Repo]:
    """DVC's view of this folder; a fault of it is told in the words of its command.

    Raises:
        StageFailed: DVC cannot read the pipeline.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with contextlib.closing(Repo()) as repository:
            yield repository
    except DvcException as error:
        done = subprocess.run([*_DVC, "status"], capture_output=True, text=True, env=_environment({}))
        said = (done.stderr or str(error)).strip()
        if "not a git repository" in said:
            said += "\nput core.no_scm = true back into .dvc/config, or repair .git"
        raise StageFailed(f"dvc status failed:\n{said}") from error


def run_stage(
    stage: str, environment: Mapping[str, str], progress: Callable[[ProgressLine], None] | None = None
) -> bool:
    """Brings one stage up to date, passing on what it prints as it comes.

    The stage runs in its own process group, so that an interrupt or SIGTERM reaches the command below DVC too.
    Outputs DVC removed for a stage that then failed are put back from its cache.

    Args:
        stage: name of the stage.
        environment: variables to add to its environment.
        progress: takes its lines of progress, about one a second; None to print them.

    Returns:
        Whether its command ran; False where DVC found it up to date, or its outputs in the cache.

    Raises:
        StageFailed: it ended with an error.
    """
    often = {} if progress is None else {EVERY: "1"}
    said = _Said()
    with child_group(
        [*_DVC, "repro", "--single-item", stage],
        env=_environment({**environment, **often}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    ) as child:
        printers = [
            threading.Thread(target=_pass_on, args=(child.stdout, "stdout", said, progress), daemon=True),
            threading.Thread(target=_pass_on, args=(child.stderr, "stderr", said, progress), daemon=True),
        ]
        for printer in printers:
            printer.start()
        try:
            status = child.wait()
        except BaseException:
            with _undisturbed():
                print(f"stopping {stage} and putting its last outputs back", flush=True)
                stop_group(child)
                _restore(stage)
            raise
        if status and signal_group(child.pid, 0):  # DVC was killed, and what it ran is left
            stop_group(child)
    for printer in printers:
        printer.join(timeout=5)  # a process that outlived the stage may hold the other end
    if status:
        _restore(stage)
        raise StageFailed(_failure(stage, status, said.status))
    return said.ran


def _failure(stage: str, status: int, of_command: int | None) -> str:
    """Returns what to tell of a stage that failed; one that was killed has said nothing itself.

    >>> _failure("mine", 255, -9)[:38]
    "stage 'mine' was ended by SIGKILL, a"
    """
    for one in (status, of_command or 0):
        number = -one if one < 0 else one - 128  # a shell's way of telling it
        if number in iter(signal.Signals):
            name = signal.Signals(number).name
            why = ", as the system does where memory runs out" if number == signal.SIGKILL else ""
            return f"stage {stage!r} was ended by {name}{why}; run again"
    return f"stage {stage!r} failed (exit status {status}); its message is above"


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Returns a child's environment: `python` in a stage's command is this interpreter, and prints without delay."""
    folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([folder, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def _pass_on(lines: IO[str], stream: str, said: _Said, progress: Callable[[ProgressLine], None] | None) -> None:
    """Hands lines of progress over and prints the others to a standard stream, as it is when a line comes."""
    for line in lines:
        if line.startswith(_RUNS):
            said.ran = True
        elif exited := _EXITED.match(line):
            said.status = int(exited[1])
        step = ProgressLine.parse(line) if progress is not None else None
        if step is not None:
            progress(step)
        elif not _CHATTER.match(line):
            print(line, end="", file=getattr(sys, stream), flush=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Leaves signals that would end the clean-up without effect, also on what it starts: an impatient second Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # signals are handled there alone
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _restore(stage: str) -> None:
    """Puts a stage's last good outputs back; those of a stage that never succeeded are in no cache."""
    subprocess.run([*_DVC, "checkout", "--quiet", "--force", stage], capture_output=True, env=_environment({}))
