"""Judgements that people give on the page: one file, appended to, that no training reads by itself.

The first three columns are those of a BEIR file of judgements; user, time, version and query follow.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rabtriever.core.artifacts import atomic_folder
from rabtriever.data.beir_io import Dataset, load_dataset, write_corpus, write_qrels, write_queries
from rabtriever.data.statistics import normalised

FILE = Path("labels/labels.tsv")  # below the project folder
MAX_USER = 80  # characters
_SHOWN = 100  # labels that the page lists, the newest


@dataclass(frozen=True)
class Label:
    """What somebody said of a document for a query: one line of the file.

    Attributes:
        query_id: made from the text of the query, so that equal queries have one id.
        doc_id: the document.
        grade: 1 helps, 0 does not.
        user: who said so, in their own words.
        time: UTC, to the second.
        version: of the retriever whose ranking was looked at.
        query: its text, in one line.
    """

    query_id: str
    doc_id: str
    grade: int
    user: str
    time: str
    version: str
    query: str


HEADER = ("query-id", "corpus-id", "score", *(field.name for field in fields(Label)[3:]))


class Labels:
    """The file of labels of a project; safe for several threads, and each label is durable when `add` returns.

    Args:
        path: the file; made with the first label.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()

    def add(self, query: str, doc_id: str, grade: int, user: str, version: str | None) -> Label:
        """Appends one label.

        Raises:
            ValueError: the query is blank, the grade is neither 0 nor 1, or the user's name is too long.
        """
        text, name = _one_line(query), _one_line(user)
        if not text:
            raise ValueError("the query is blank; write what is wanted")
        if grade not in (0, 1):
            raise ValueError(f"the grade is {grade}, expected 1 (helps) or 0 (does not)")
        if len(name) > MAX_USER:
            raise ValueError(f"the name has {len(name)} characters, expected at most {MAX_USER}")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        label = Label(query_id(query), _one_line(doc_id), grade, name or "unknown", now, version or "", text)
        with self._lock:
            self._append("\t".join(map(str, asdict(label).values())) + "\n")
        return label

    def read(self) -> list[Label]:
        """All labels, in the order given.

        Raises:
            ValueError: a line does not have the columns of the header.
        """
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")
        return [_parsed(line, f"{self.path}:{number}") for number, line in enumerate(lines[1:], start=2) if line]

    def shown(self) -> dict[str, Any]:
        """What the page lists: the newest labels, the newest first, and how many there are by user and grade."""
        found = self.read()
        users = Counter(label.user for label in found)
        return {
            "path": str(self.path),
            "total": len(found),
            "helps": sum(label.grade > 0 for label in latest(found).values()),
            "pairs": len(latest(found)),
            "users": dict(users.most_common(20)),
            "labels": [asdict(label) for label in reversed(found[-_SHOWN:])],
        }

    def _append(self, line: str) -> None:
        new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as handle:  # one write: lines of two processes do not mix
            handle.write((("\t".join(HEADER) + "\n") if new else "").encode() + line.encode())
            handle.flush()
            os.fsync(handle.fileno())


def latest(labels: list[Label]) -> dict[tuple[str, str], Label]:
    """The last label of each query and document: a later one corrects an earlier one."""
    return {(label.query_id, label.doc_id): label for label in labels}


def query_id(query: str) -> str:
    """The id of a query that has none: the same for texts that count as one (`statistics.normalised`)."""
    return "label-" + hashlib.sha256(normalised(query).encode()).hexdigest()[:12]


def _parsed(line: str, where: str) -> Label:
    columns = line.split("\t")
    if len(columns) != len(HEADER) or columns[2] not in ("0", "1"):
        raise ValueError(f"{where}: found {line[:80]!r}, expected {len(HEADER)} columns with a score of 0 or 1")
    return Label(*columns[:2], int(columns[2]), *columns[3:])


def _one_line(text: str) -> str:
    """A text without what would break a line or a column, and without half surrogate pairs."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


class Taken(NamedTuple):
    """What became of the labels: pairs that were added, and why others were not."""

    added: int
    judged_before: int
    of_held_out_queries: int
    of_unknown_documents: int
    of_queries_without_help: int


def add_to_training(labels: list[Label], source: str | Path, target: str | Path) -> Taken:
    """Writes a data set that has the judgements of another and the labels as training judgements.

    The last label of a pair counts. Left out are pairs that are judged already, queries that are test or dev queries,
    documents that the corpus lacks, and queries for which no document helps.

    Args:
        labels: what people said.
        source: folder in BEIR layout.
        target: folder that is written; `make run DATA=target` trains on it.

    Raises:
        FileExistsError: the target is there.
        FileNotFoundError, DataContractError: as of `beir_io.load_dataset`.
    """
    if Path(target).exists():
        raise FileExistsError(f"{target} is there already, expected a new folder; name another one")
    dataset = load_dataset(source)
    ids = {normalised(text): query for query, text in dataset.queries.items()}
    held_out = {query for split, qrels in dataset.qrels.items() if split != "train" for query in qrels}
    train = {query: dict(grades) for query, grades in dataset.qrels["train"].items()}
    queries, reasons = dict(dataset.queries), Counter()
    for label in latest(labels).values():
        query = ids.get(normalised(label.query), label.query_id)
        reason = _reason(label, query, dataset, train, held_out)
        reasons[reason] += 1
        if reason == "added":
            train.setdefault(query, {})[label.doc_id] = label.grade
            queries.setdefault(query, label.query)
    without = [query for query, grades in train.items() if query not in dataset.queries and not any(grades.values())]
    lost = sum(len(train.pop(query)) for query in without)
    kept = {query: text for query, text in queries.items() if query not in without}
    _write(Dataset(dataset.corpus, kept, {**dataset.qrels, "train": train}), Path(target))
    return Taken(reasons["added"] - lost, reasons["judged"], reasons["held out"], reasons["document"], lost)


def _reason(label: Label, query: str, dataset: Dataset, train: dict[str, dict[str, int]], held_out: set[str]) -> str:
    if query in held_out:
        return "held out"
    if label.doc_id not in dataset.corpus:
        return "document"
    return "judged" if label.doc_id in train.get(query, {}) else "added"


def _write(dataset: Dataset, target: Path) -> None:
    with atomic_folder(target) as folder:
        write_corpus(folder / "corpus.jsonl", dataset.corpus)
        write_queries(folder / "queries.jsonl", dataset.queries)
        for split, qrels in dataset.qrels.items():
            write_qrels(folder / "qrels" / f"{split}.tsv", qrels)
