"""BM25, bi-encoder and teacher beside the student, for the page: opened in the background when somebody looks.

They are of the project folder, which may hold another run than the version in service; the documents are those that are
served. A system that is not at hand says why.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.core.settings import load_params
from rabtriever.core.stages import Paths
from rabtriever.core.vectors import top_rows, unit
from rabtriever.data.beir_io import Document
from rabtriever.server.project import Project

MOST_ENCODED = 20_000  # documents that are encoded for the bi-encoder: some minutes on two cores
MOST_READ = 200  # documents that the teacher reads for one query
_BATCH = 32
NAMES = ("bm25", "biencoder", "teacher")


class Ranking(NamedTuple):
    """Documents with scores, best first, and how long that took."""

    hits: list[tuple[str, float]]
    milliseconds: float


class Served(Protocol):
    """What is needed of the version in service."""

    @property
    def documents(self) -> Sequence[Document]:
        """Its documents, in row order."""


@dataclass
class _Slot:
    """One system: what ranks with it, or why it cannot; `lock` lets one query at a time through."""

    state: str = "closed"  # closed, opening, ready, missing
    reason: str = ""
    system: Any = None
    of: Any = None  # the documents that it was opened with
    lock: threading.Lock = field(default_factory=threading.Lock)


class Systems:
    """The systems beside the student.

    Args:
        project: where their models are.
        served: gives the version in service, which may change.
    """

    def __init__(self, project: Project, served: Callable[[], Served]) -> None:
        self._project, self._served = project, served
        self._slots = {name: _Slot() for name in NAMES}
        self._opening = threading.Lock()

    def states(self) -> dict[str, dict[str, str]]:
        """How each system stands: `opening`, `ready` or `missing`, with the reason; opens those that are not open."""
        served = self._served()
        with self._opening:
            closed = [name for name, slot in self._slots.items() if slot.state == "closed" or _is_stale(slot, served)]
            for name in closed:
                self._slots[name].state, self._slots[name].of = "opening", served
            if closed:
                threading.Thread(target=self._open, args=(closed, served), name="page-systems", daemon=True).start()
        return {name: {"state": slot.state, "reason": slot.reason} for name, slot in self._slots.items()}

    def rank(self, name: str, query: str, k: int) -> Ranking:
        """The first k documents of bm25 or biencoder.

        Raises:
            LookupError: the system is not ready; the message says why.
        """
        slot = self._ready(name)
        with slot.lock:
            start = time.perf_counter()
            hits = slot.system.rank(query, k)
            return Ranking(hits, 1000 * (time.perf_counter() - start))

    def read(self, query: str, documents: Sequence[Document]) -> Ranking:
        """The teacher's order of some documents, each of which it reads for this query.

        Raises:
            LookupError: the teacher is not ready; the message says why.
            ValueError: there are too many documents.
        """
        if len(documents) > MOST_READ:
            raise ValueError(f"there are {len(documents)} documents for the teacher, expected at most {MOST_READ}")
        slot = self._ready("teacher")
        with slot.lock:
            start = time.perf_counter()
            hits = slot.system.read(query, documents)
            return Ranking(hits, 1000 * (time.perf_counter() - start))

    def _ready(self, name: str) -> _Slot:
        slot = self._slots[name]
        if slot.state != "ready":
            raise LookupError(f"{name} is {slot.state}" + (f": {slot.reason}" if slot.reason else ""))
        return slot

    def _open(self, names: list[str], served: Served) -> None:
        """Opens systems one after the other, the quickest first; whatever stops one of them is its reason."""
        makers = {"bm25": _bm25, "biencoder": _LiveBiEncoder.open, "teacher": _LiveTeacher.open}
        for name in names:
            slot = self._slots[name]
            try:
                made = makers[name](self._project.paths, served.documents, slot.system)
            except ModuleNotFoundError as error:
                slot.reason, slot.state = f"{error.name} is not installed; install rabtriever[train]", "missing"
            except (OSError, ArtifactMismatchError, ValueError, KeyError, RuntimeError) as error:
                slot.reason, slot.state = str(error), "missing"
            else:
                slot.system, slot.reason, slot.state = made, "", "ready"


def _is_stale(slot: _Slot, served: Served) -> bool:
    """Whether a system that has been opened was opened with other documents than are served now."""
    return slot.state in ("ready", "missing") and slot.of is not served


class _LiveBm25:
    def __init__(self, documents: Sequence[Document]) -> None:
        from rabtriever.search.bm25 import Bm25

        self._ids = [document.doc_id for document in documents]
        self._index = Bm25([document.contents for document in documents])

    def rank(self, query: str, k: int) -> list[tuple[str, float]]:
        """Documents that share a word with the query; the others have no order."""
        rows, scores = self._index.rank([query], k)
        found = zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        return [(self._ids[row], score) for row, score in found if score > 0]


def _bm25(paths: Paths, documents: Sequence[Document], before: Any) -> _LiveBm25:
    return _LiveBm25(documents)


class _LiveBiEncoder:
    """The bi-encoder of the project folder over the documents that are served."""

    def __init__(self, paths: Paths) -> None:
        from rabtriever.training.model_io import open_model

        with _same_precision():
            self._backbone, self._prompt, _ = open_model(paths.biencoder, "biencoder", *_parents(paths))
        self._known: dict[str, np.ndarray] = {}  # vectors by contents: a change encodes only what is new
        self._index: tuple[list[str], np.ndarray] = ([], np.empty((0, 0)))

    @classmethod
    def open(cls, paths: Paths, documents: Sequence[Document], before: _LiveBiEncoder | None) -> _LiveBiEncoder:
        """Opens the model, or goes on with the one that is open, and encodes the documents that it has not seen."""
        if len(documents) > MOST_ENCODED:
            raise ValueError(f"{len(documents):,} documents would have to be encoded, more than {MOST_ENCODED:,}")
        made = before or cls(paths)
        made._take(documents)
        return made

    def _take(self, documents: Sequence[Document]) -> None:
        texts = [document.contents for document in documents]
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            vectors = unit(self._backbone.encode(self._prompt.document.ids(new), _BATCH))
            self._known.update(zip(new, vectors, strict=True))
        self._index = [document.doc_id for document in documents], np.stack([self._known[text] for text in texts])

    def rank(self, query: str, k: int) -> list[tuple[str, float]]:
        """The documents nearest to the query."""
        asked = unit(self._backbone.encode(self._prompt.query.ids([query]), 1))
        ids, vectors = self._index
        scores = asked @ vectors.T
        return [(ids[row], float(scores[0, row])) for row in top_rows(scores, k)[0]]


class _LiveTeacher:
    """The teacher of the project folder; it reads whatever documents it is given."""

    def __init__(self, paths: Paths) -> None:
        from rabtriever.models.reranker import Reranker
        from rabtriever.training.model_io import open_model

        with _same_precision():
            teacher, prompt, _ = open_model(paths.teacher, "teacher", *_parents(paths))
            biencoder, *_ = open_model(paths.biencoder, "biencoder", *_parents(paths))
        self._reranker = Reranker(teacher, prompt, biencoder)

    @classmethod
    def open(cls, paths: Paths, documents: Sequence[Document], before: _LiveTeacher | None) -> _LiveTeacher:
        """Opens the model, or goes on with the one that is open."""
        return before or cls(paths)

    def read(self, query: str, documents: Sequence[Document]) -> list[tuple[str, float]]:
        """The documents in the teacher's order, with its scores."""
        if not documents:
            return []
        reranker = self._reranker
        asked = reranker.prompt.query.ids([query])
        ids = reranker.prompt.document.ids([document.contents for document in documents])
        pairs = np.array([(0, row) for row in range(len(documents))], dtype=np.int64)
        scores = np.empty(len(documents), dtype=np.float32)
        for part in reranker.score_pairs(asked, ids, pairs, _BATCH):
            scores[part.pairs] = part.scores
        found = [(document.doc_id, float(score)) for document, score in zip(documents, scores, strict=True)]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))


@contextlib.contextmanager
def _same_precision() -> Iterator[None]:
    """Opening a model for training lets a GPU round products in the whole process; what is served must not change."""
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _parents(paths: Paths) -> tuple[Any, str]:
    """The prompt of params.yaml and the hash of the prepared data, which the models must have been made from."""
    from rabtriever.lm.prompt import PromptParams

    prompt = load_params(PromptParams, "prompt", paths.params)
    return prompt, read_manifest(paths.prepared, "data", verify=False).hash
