"""A project as a finished run leaves it, made of the embedded data without any training: for the tests of the page.

The rankings are drawn: each system's score of a document is its grade, as far as the system is good, and noise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rabtriever.core.artifacts import write_json
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import Dataset, Document, Run, load_dataset, write_run
from rabtriever.data.metrics import METRICS, score_queries, summarise
from rabtriever.data.preparation import write_dataset
from rabtriever.evaluation.gap import gap_report
from rabtriever.search.calibration import Calibration
from rabtriever.search.explanation import Explanation
from rabtriever.search.live import Query
from rabtriever.search.retriever import Hit
from tests.closure import ROOT

SKILL = {"bm25": 0.5, "biencoder": 2.6, "student": 2.75, "teacher": 2.8}
COST = {  # milliseconds, 95th percentile, bytes a document
    "bm25": (0.31, 0.47, 144.9),
    "biencoder": (2.6, 4.6, 512.0),
    "student": (5.3, 7.8, 3076.0),
    "teacher": (177.0, None, 127.4),
}
RETRIEVER = hashlib.sha256(b"retriever of the page").hexdigest()
HOSTILE = '<img src=x onerror="document.title=1"><script>document.title=2</script>'
_TESTED, _TRAINED = 120, 400  # queries


def write_project(root: Path) -> Dataset:
    """Writes data/prepared and reports as a finished run does; one document and one query hold HTML."""
    dataset, paths = _dataset(), Paths.below(root)
    write_dataset(dataset, paths.prepared)
    dataset = load_dataset(paths.prepared)
    runs = {name: drawn(dataset, name) for name in SKILL}
    for name, run in runs.items():
        write_run(paths.reports / "runs" / f"{name}.trec", run, name)
    per_query = {name: score_queries(dataset.qrels["test"], run) for name, run in runs.items()}
    _write_per_query(paths.reports / "per_query.tsv", per_query)
    write_json(paths.reports / "evaluation.json", _evaluation(dataset, per_query))
    write_json(paths.reports / "data.json", _report(dataset))
    write_json(
        paths.reports / "samples.json",
        [{"query_id": q, "query": dataset.queries[q], "hits": []} for q in examples(dataset)],
    )
    return dataset


def examples(dataset: Dataset) -> list[str]:
    """Ids of the example queries."""
    return list(dataset.qrels["test"])[1:6]


def drawn(dataset: Dataset, system: str) -> Run:
    """The ranking of every test query by one system."""
    ids = list(dataset.corpus)
    run: Run = {}
    for query_id, grades in dataset.qrels["test"].items():
        scores = _noise(f"{system} {query_id}", len(ids)) + 0.5 * _noise(query_id, len(ids))
        scores += SKILL[system] * np.array([1.2 * grades.get(doc_id, 0) ** 0.5 for doc_id in ids])
        best = np.argsort(-scores)[:100]
        run[query_id] = {ids[row]: round(float(scores[row]), 5) for row in best}
    return run


def _noise(text: str, size: int) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    return np.random.default_rng(seed).normal(size=size)


def _dataset() -> Dataset:
    whole = load_dataset(ROOT / "data/household")
    queries, qrels = dict(whole.queries), {}
    for split, most in (("train", _TRAINED), ("dev", 60), ("test", _TESTED)):
        qrels[split] = dict(list(whole.qrels[split].items())[:most])
    first = next(iter(qrels["test"]))
    queries[first] = f"{HOSTILE} What helps against this?"
    named = next(iter(qrels["test"][first]))
    corpus = {**whole.corpus, named: Document(named, f"{HOSTILE} title", f"{HOSTILE} text")}
    kept = {query_id: queries[query_id] for found in qrels.values() for query_id in found}
    return Dataset(corpus, kept, qrels)


def _write_per_query(path: Path, per_query: dict[str, dict[str, dict[str, float]]]) -> None:
    lines = ["\t".join(("query_id", "system", *METRICS))]
    for name, values in per_query.items():
        lines += ["\t".join((query, name, *(f"{row[m]:.6f}" for m in METRICS))) for query, row in values.items()]
    path.write_text("\n".join(lines) + "\n")


def _evaluation(dataset: Dataset, per_query: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    rows = {}
    for name, values in per_query.items():
        median, p95, stored = COST[name]
        means = {metric: round(value, 2) for metric, value in summarise(values).items()}
        rows[name] = {**means, "ms_per_query": median, "ms_per_query_p95": p95, "bytes_per_document": stored}
    return {
        "retriever": RETRIEVER,
        "dataset": "household",
        "split": "test",
        "num_queries": len(per_query["student"]),
        "num_documents": len(dataset.corpus),
        **gap_report(per_query),
        "teacher_scope": "all documents",
        "timing": {"queries": 50, "others_cpu_percent": 1.5},
        "systems": rows,
    }


def _report(dataset: Dataset) -> dict[str, Any]:
    from rabtriever.data.statistics import describe

    names = ("no file is empty", "document ids are unique", "every grade is an integer of 0 or more")
    found = [{"expectation": name, "success": True, "rows": 490} for name in names]
    found.append({"expectation": "no document is blank", "success": False, "rows": 490, "unexpected": 2})
    return {
        "source": "household",
        "hash": dataset.hash,
        **describe(dataset),
        "expectations": found,
        "dev_cut_from_train": False,
        "kept_queries": {name: len(qrels) for name, qrels in dataset.qrels.items()},
    }


@dataclass(frozen=True)
class _Manifest:
    hash: str


class FakeLive:
    """A retriever in service that ranks test queries as a recorded run does, and any other query at random."""

    def __init__(self, dataset: Dataset, version: str | None = "3", system: str = "student") -> None:
        self._dataset, self._run, self.version = dataset, drawn(dataset, system), version
        self._ids = {text: query_id for query_id, text in dataset.queries.items()}
        self.manifest, self.calibration = _Manifest(RETRIEVER), Calibration(1.0, -1.0, 0.5, 0.9)

    @property
    def documents(self) -> Sequence[Document]:
        """Its documents."""
        return list(self._dataset.corpus.values())

    def __len__(self) -> int:
        return len(self._dataset.corpus)

    def document(self, doc_id: str) -> Document:
        """One of its documents."""
        if doc_id not in self._dataset.corpus:
            raise ValueError(f"no document is {doc_id!r}")
        return self._dataset.corpus[doc_id]

    def scores(self, query: str) -> dict[str, float]:
        """Documents with scores, best first."""
        if (query_id := self._ids.get(query)) in self._run:
            return self._run[query_id]
        ids, noise = list(self._dataset.corpus), _noise(query, len(self))
        return {ids[row]: float(noise[row]) for row in np.argsort(-noise)[:100]}

    def search(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """The hits of each query."""
        return [
            [
                Hit(doc_id, score, *self.document(doc_id)[1:3])
                for doc_id, score in list(self.scores(one.text).items())[: one.k]
            ]
            for one in queries
        ]

    def explain(self, query: str, doc_id: str) -> Explanation:
        """Parts that sum to the score."""
        score = self.scores(query).get(doc_id, -1.0)
        return Explanation(query, doc_id, 0.4, score - 2.2, 2.0, 0.3, -0.5)


class FakeSystem:
    """A system beside the student, with the rankings of a recorded run."""

    def __init__(self, dataset: Dataset, system: str) -> None:
        self._live = FakeLive(dataset, system=system)

    def rank(self, query: str, k: int) -> list[tuple[str, float]]:
        """The first k documents."""
        return list(self._live.scores(query).items())[:k]

    def read(self, query: str, documents: Sequence[Document]) -> list[tuple[str, float]]:
        """Some documents in the order of their scores."""
        scores = self._live.scores(query)
        found = [(document.doc_id, scores.get(document.doc_id, -5.0)) for document in documents]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]))


def write_registry(dataset: Dataset) -> list[str]:
    """Registers five versions with decisions in the store of MLFLOW_TRACKING_URI; the third is the champion.

    Returns:
        the versions' numbers, the oldest first.
    """
    from rabtriever.ops import registry, tracking

    client = tracking.client()
    registry._ensure_model()
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    student = score_queries(dataset.qrels["test"], drawn(dataset, "student"))
    numbers = []
    for place, (promoted, mean, low, high) in enumerate(_DECISIONS):
        _settings_run(client, experiment, place)
        run = client.create_run(experiment, tags={"stage": "register"}).info.run_id
        client.set_terminated(run)
        values = {query: {**row, "nDCG@10": _shifted(row["nDCG@10"], query, place)} for query, row in student.items()}
        client.log_dict(run, values, "evaluation/per_query.json")
        tags = {
            "retriever_hash": hashlib.sha256(f"version {place}".encode()).hexdigest() if place != 2 else RETRIEVER,
            "data_hash": dataset.hash if place else "0123456789abcdef",
            "code_hash": hashlib.sha256(f"code {place // 2}".encode()).hexdigest(),
            "dataset": "household",
            "parent.prompt": "57513adf77333369",
            "parent.teacher": hashlib.sha256(f"teacher {place // 3}".encode()).hexdigest(),
            "student.ndcg_10": f"{79 + place:.2f}",
        }
        made = client.create_model_version(registry.MODEL, f"file:///nowhere/{place}", run_id=run, tags=tags)
        numbers.append(str(made.version))
        interval = None if mean is None else {"mean": mean, "low": low, "high": high}
        decision = {
            "version": numbers[-1], "promoted": promoted, "reason": _reason(promoted, mean, low, high), "fault": None,
            "champion": numbers[place - 1] if place in (1, 2) else "3" if place > 2 else None,
            "ndcg_10": 79.0 + place, "recall_100": 99.0, "champion_ndcg_10": None, "interval": interval,
            "gate": {"tolerance": 1.0, "confidence": 0.95}, "decided_at": f"2026-11-0{place + 1}T06:12:00+00:00",
            "biencoder_ndcg_10": 79.3,
        }  # fmt: skip
        registry.record_decision(registry.get(numbers[-1]), decision)
        if promoted:
            registry.promote(registry.get(numbers[-1]))
    return numbers


_FIRST = "nDCG@10 79.0 with a first version's floor of 40.0; R@100 98.9, floor 90.0"
_DECISIONS = (  # promoted, mean, low and high of the interval
    (True, None, None, None),
    (True, 0.9, 0.1, 1.7),
    (True, 0.4, -0.6, 1.3),
    (False, -1.3, -2.6, 0.1),
    (False, -0.2, -1.4, 1.1),
)


def _reason(promoted: bool, mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return _FIRST
    compared = f"nDCG@10 {mean:+.1f} points against the champion (95 % interval {low:+.1f} to {high:+.1f}, tolerance 1)"
    return f"{compared}; R@100 99.0, floor 90.0" if promoted else f"it may be worse than the champion: {compared}"


def _settings_run(client: Any, experiment: str, place: int) -> None:
    run = client.create_run(experiment, tags={"stage": "train_teacher"}).info.run_id
    client.log_param(run, "train_teacher.steps", str(400 + 100 * (place // 2)))
    client.log_param(run, "train_teacher.learning_rate", "0.005")
    client.set_terminated(run)


def _shifted(value: float, query: str, place: int) -> float:
    shift = float(_noise(f"{query} {place}", 1)[0])
    return value if abs(shift) < 1 else float(np.clip(value + 0.15 * shift, 0, 1))


def as_json(value: Any) -> Any:
    """A value as a reader of JSON gets it."""
    return json.loads(json.dumps(value, allow_nan=False))
