"""Work done by several processes side by side, each on its share of the processor.

What one process prints is marked with the name of its work, as the lines of all meet on one terminal.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import Any, TextIO

import cloudpickle
from prefect.context import hydrated_context, serialize_context


class _Here(Executor):
    """Does in this process, at once, what it is given."""

    def submit(self, fn: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*arguments, **named))
        return done


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """An executor whose work is part of the flow run that is on, if any; whatever is unfinished at the end is stopped.

    Args:
        workers: processes; with 1 there is none beside this one, and work is done as it is submitted.
    """
    if workers == 1:
        yield _Here()
        return
    import torch

    threads = max(1, torch.get_num_threads() // workers)
    context = cloudpickle.dumps(serialize_context())
    with _environment(OMP_NUM_THREADS=str(threads)):  # read as the libraries of a process are loaded
        pool = ProcessPoolExecutor(
            workers,
            multiprocessing.get_context("spawn"),
            initializer=_start,
            initargs=(context, threads, os.getpid()),
            max_tasks_per_child=1,  # a process keeps the most memory that any of its work took
        )
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def marked(label: str) -> Iterator[None]:
    """Puts a label before each line that is printed here; of a progress bar, lines remain."""
    with contextlib.redirect_stdout(_Marked(sys.stdout, label)), contextlib.redirect_stderr(_Marked(sys.stderr, label)):
        yield


class _Marked(io.TextIOBase):
    def __init__(self, stream: TextIO, label: str) -> None:
        self._stream, self._label, self._line = stream, label, ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        if lines:  # in one call, as another process writes too
            self._stream.write("".join(f"{self._label} | {line}\n" if line else "\n" for line in lines))
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _start(context: bytes, threads: int, parent: int) -> None:
    """Prepares a process: its threads, its end on SIGTERM or without a parent, and the flow run that its work is of."""
    import torch

    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process tells the others
    hydrated_context(cloudpickle.loads(context)).__enter__()  # for as long as the process lives


def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone: killed, that tells nobody, and another run would do the same work."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)
    os._exit(128 + signal.SIGTERM)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
