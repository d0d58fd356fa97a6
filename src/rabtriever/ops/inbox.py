"""Data that come in for a retraining: adopted when they meet the contract, else set aside with a report.

What is set aside is a copy, `quarantine/NAME-HASH` beside the folder: whoever delivers may write the folder again, and
the same faulty data are kept once.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import atomic_folder, atomic_write, content_hash, write_json
from rabtriever.core.settings import load_params
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import DataContractError, load_dataset
from rabtriever.data.preparation import PrepareParams, checked
from rabtriever.ops import irds
from rabtriever.ops.pipeline_settings import adopt_source
from rabtriever.ops.verdict import Outcome, Verdict

QUARANTINE = "quarantine"
_FILES = ("corpus.jsonl", "queries.jsonl", *(f"qrels/{split}.tsv" for split in ("train", "dev", "test")))


class DataQuarantined(DataContractError):
    """Data that do not meet the contract were set aside; the champion and params.yaml are as before.

    Attributes:
        verdict: outcome, reason and folder.
    """

    def __init__(self, reason: str, folder: Path) -> None:
        super().__init__(f"{reason}\nThe data were set aside in {folder}, with report.md; the champion stays.")
        self.verdict = Verdict(Outcome.DATA_QUARANTINED, str(self), folder=folder)


def adopt(data: str | None) -> None:
    """Makes a folder the data set of params.yaml, or sets it aside where it breaks the data contract.

    Args:
        data: a folder in BEIR layout, an `irds:` address of ir_datasets, None to change nothing.

    Raises:
        FileNotFoundError: there is no such folder.
        ConnectionError: a set of ir_datasets cannot be downloaded.
        ValueError: it is a folder that the pipeline cannot take as its source, or ir_datasets has no such set.
        DataQuarantined: it is not complete, or the data break the contract; params.yaml is untouched.
    """
    folder = data and irds.local_folder(data)
    _quarantining(folder, lambda: adopt_source(folder))


def check_source() -> None:
    """Sets the data set of params.yaml aside where it breaks the contract: something else may have refreshed it.

    Raises:
        DataQuarantined: it does.
    """
    params = load_params(PrepareParams, "prepare", Paths().params)
    with contextlib.suppress(FileNotFoundError):  # no folder to set aside
        _quarantining(params.source, lambda: checked(load_dataset(params.source), params))


def _quarantining(data: str | None, check: Callable[[], Any]) -> None:
    try:
        check()
    except (DataContractError, FileNotFoundError) as error:
        folder = Path(data or "").expanduser()
        if not data or not folder.is_dir() or not _present(folder):  # no data set
            raise
        try:
            kept = _set_aside(folder, str(error))
        except OSError as failure:
            raise DataContractError(f"{error}\nThe data could not be set aside: {failure}") from error
        raise DataQuarantined(str(error), kept) from error


def _set_aside(source: Path, reason: str) -> Path:
    """Copies the files of a data set, with the reason, to a folder of its own beside it; returns that folder."""
    source = source.resolve()
    place = source.parent / QUARANTINE
    folder = place / f"{source.name}-{_identity(source)}"
    with atomic_folder(folder) as target:
        for file in _present(source):
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, target / file)
        found = {"data": str(source), "found_at": datetime.now(UTC).isoformat(timespec="seconds"), "reason": reason}
        write_json(target / "report.json", found)
        with atomic_write(target / "report.md") as report:
            report.write(f"# Data that were set aside\n\n{source}, {found['found_at']}\n\n```text\n{reason}\n```\n")
    if not (place / ".gitignore").exists():
        with atomic_write(place / ".gitignore") as ignored:
            ignored.write("*\n")
    return folder


def _present(source: Path) -> list[str]:
    """The files of the layout that there are, plain or with `.gz`."""
    return [name for file in _FILES for name in (file, f"{file}.gz") if (source / name).is_file()]


def _identity(source: Path) -> str:
    """Twelve letters that change with the content of any file."""
    hashes = [f"{file} {content_hash(source / file)}" for file in _present(source)]
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:12]
