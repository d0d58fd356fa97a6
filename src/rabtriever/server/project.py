"""What a finished run has left in a project folder, read once and again only when a file has changed."""

from __future__ import annotations

import csv
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import ArtifactMismatchError, read_json
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import DataContractError, Dataset, Run, load_dataset, read_run
from rabtriever.data.statistics import normalised

ORDER = ("bm25", "biencoder", "student", "teacher")  # of systems, as the page shows them
PerQuery = dict[str, dict[str, dict[str, float]]]
_READ = ("evaluation.json", "per_query.tsv", "data.json", "samples.json")


class NothingHere(Exception):
    """The project folder lacks what a view shows; the message says what, and what to do."""


@dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        dataset: the prepared data.
        evaluation: content of reports/evaluation.json.
        report: content of reports/data.json.
        samples: content of reports/samples.json.
        per_query: system -> query id -> metric -> value from 0 to 1.
        runs: system -> ranking of every test query.
    """

    dataset: Dataset
    evaluation: dict[str, Any]
    report: dict[str, Any]
    samples: list[dict[str, Any]]
    per_query: PerQuery
    runs: dict[str, Run]

    @property
    def systems(self) -> list[str]:
        """Names of the systems that have rankings, in the order of the page."""
        known = [name for name in ORDER if name in self.runs]
        return known + sorted(set(self.runs) - set(known))

    @cached_property
    def query_of_text(self) -> dict[str, str]:
        """Query id by `normalised` text, of every split; where texts repeat, a test query's."""
        test = self.dataset.qrels["test"]
        ordered = sorted(self.dataset.queries, key=lambda query_id: query_id in test)
        return {normalised(self.dataset.queries[query_id]): query_id for query_id in ordered}

    @cached_property
    def relevant_in_training(self) -> frozenset[str]:
        """The documents that are relevant for a training query."""
        train = self.dataset.qrels["train"]
        return frozenset(doc_id for grades in train.values() for doc_id, grade in grades.items() if grade > 0)

    def grades(self, query_id: str | None) -> dict[str, int]:
        """The judgements of a query, of whichever split; none for one that nobody judged."""
        found = (qrels[query_id] for qrels in self.dataset.qrels.values() if query_id in qrels)
        return dict(next(found, {}))


class Project:
    """A project folder.

    Args:
        root: the folder that holds params.yaml, data, models and reports.
    """

    def __init__(self, root: str | Path = ".") -> None:
        self.root, self.paths = Path(root), Paths.below(root)
        self._lock = threading.Lock()
        self._stamp: tuple[float, ...] = ()
        self._finished: Finished | None = None

    def finished(self) -> Finished:
        """The finished run.

        Raises:
            NothingHere: there is none, a file of it is broken, or reports and data are of different runs.
        """
        with self._lock:
            try:
                stamp = self._stamps()
                if self._finished is None or stamp != self._stamp:
                    self._finished, self._stamp = _read(self.paths), stamp
            except FileNotFoundError as error:
                advice = "run `make run`, and start the server in the folder of the project"
                raise NothingHere(f"There is no finished run here ({error}); {advice}.") from error
            except (DataContractError, ArtifactMismatchError, ValueError, KeyError, TypeError) as error:
                raise NothingHere(f"The last run cannot be shown: {error}.") from error
            return self._finished

    def _stamps(self) -> tuple[float, ...]:
        files = [self.paths.reports / name for name in _READ]
        files += [self.paths.prepared / "manifest.json", self.paths.reports / "runs"]
        return tuple(path.stat().st_mtime for path in files)


def _read(paths: Paths) -> Finished:
    reports = paths.reports
    evaluation, per_query = read_json(reports / "evaluation.json"), _read_per_query(reports / "per_query.tsv")
    runs = {path.stem: read_run(path) for path in sorted((reports / "runs").glob("*.trec"))}
    runs = {name: run for name, run in runs.items() if name in per_query and name in evaluation["systems"]}
    dataset = load_dataset(paths.prepared)
    _check(dataset, per_query, runs)
    report, samples = (read_json(reports / name) for name in ("data.json", "samples.json"))
    return Finished(dataset, evaluation, report, samples, per_query, runs)


def _read_per_query(path: Path) -> PerQuery:
    with path.open(encoding="utf-8", newline="") as handle:
        found: PerQuery = {}
        for row in csv.DictReader(handle, delimiter="\t"):
            query_id, system = row.pop("query_id"), row.pop("system")
            found.setdefault(system, {})[query_id] = {metric: float(value) for metric, value in row.items()}
    return found


def _check(dataset: Dataset, per_query: PerQuery, runs: dict[str, Run]) -> None:
    """Makes sure that the reports are of these data."""
    queries = {query_id for values in per_query.values() for query_id in values} - set(dataset.qrels["test"])
    documents = {doc_id for run in runs.values() for scores in run.values() for doc_id in scores} - set(dataset.corpus)
    for kind, unknown in (("query", queries), ("document", documents)):
        if unknown:
            raise ArtifactMismatchError(
                f"the reports name the {kind} {min(unknown)!r}, which data/prepared lacks; run dvc repro, so that both "
                "are of one run"
            )
