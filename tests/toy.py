"""A toy project for the tests of registry, gate and outer flow: data, a look-up retriever, two DVC stages.

Also a program: `python -m tests.toy prepare|index` are those stages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from rabtriever.core.artifacts import atomic_folder, read_json, read_manifest, write_json, write_manifest
from rabtriever.data import beir_io
from rabtriever.data.beir_io import Document
from rabtriever.data.metrics import METRICS, score_queries, summarise
from rabtriever.ops import registry, tracking

ROOT = Path(__file__).resolve().parent.parent
NUM_DOCUMENTS, NUM_QUERIES = 12, 40  # queries of test, and as many of dev
FIGURES = {  # of reports/evaluation.json: the student closes a significant gap
    "gap": {"mean": 10.0, "low": 8.0, "high": 12.0},
    "gap_closed": {"value": 90.0, "low": 70.0, "high": 110.0},
    "student_vs_biencoder": {"mean": 9.0, "low": 7.0, "high": 11.0},
}


class ToyHit(NamedTuple):
    """As the real one has it."""

    doc_id: str
    score: float
    title: str
    text: str


class ToyRetriever:
    """Stands where `rabtriever.retriever.Retriever` does; ranks the document noted for a query's text first."""

    def __init__(self, manifest: Any, corpus: beir_io.Corpus, best: dict[str, str]) -> None:
        self.manifest, self.corpus, self.best = manifest, corpus, best

    @classmethod
    def load(cls, folder: str | Path) -> ToyRetriever:
        manifest = read_manifest(folder, "retriever")
        return cls(manifest, beir_io.read_corpus(Path(folder) / "corpus.jsonl"), read_json(Path(folder) / "best.json"))

    def search(self, queries: Sequence[str], k: int = 10) -> list[list[Any]]:
        return [[self._hit(doc_id, score) for doc_id, score in self._ranked(query)[:k]] for query in queries]

    def rank(self, queries: beir_io.Queries, k: int) -> beir_io.Run:
        return {query_id: dict(self._ranked(text)[:k]) for query_id, text in queries.items()}

    def reindexed(self, corpus: beir_io.Corpus) -> ToyRetriever:
        return ToyRetriever(self.manifest, corpus, self.best)

    def _ranked(self, query: str) -> list[tuple[str, float]]:
        ordered = sorted(self.corpus, key=lambda doc: (doc != self.best.get(query), doc))
        return [(doc, -float(place)) for place, doc in enumerate(ordered)]

    def _hit(self, doc_id: str, score: float) -> ToyHit:
        document = self.corpus[doc_id]
        return ToyHit(doc_id, score, document.title, document.text)


def dataset(prefix: str = "need") -> beir_io.Dataset:
    """A data set whose queries name nothing but themselves; another prefix gives another data hash."""
    corpus = {f"d{i:02}": Document(f"d{i:02}", f"Thing {i}", f"What thing {i} is for.") for i in range(NUM_DOCUMENTS)}
    names = {split: [f"{mark}{i:02}" for i in range(NUM_QUERIES)] for split, mark in (("test", "q"), ("dev", "v"))}
    queries = {name: f"{prefix} {i}" for i, name in enumerate([*names["test"], *names["dev"]])}
    # the first documents are no query's answer, so that a miss is a miss
    qrels = {split: {name: {f"d{5 + i % 7:02}": 1} for i, name in enumerate(names[split])} for split in names}
    return beir_io.Dataset(corpus, queries, {"train": {}, **qrels})


def write_retriever(folder: str | Path, data: beir_io.Dataset, quality: float, dev: float | None = None) -> None:
    """A retriever folder that answers this share of the queries rightly; of the dev queries `dev` where it is given."""
    right = _right(data, "test", quality) + _right(data, "dev", quality if dev is None else dev)
    kept = {data.queries[query]: doc_id for query, doc_id in right}
    with atomic_folder(folder) as target:
        beir_io.write_corpus(target / "corpus.jsonl", data.corpus)
        write_json(target / "best.json", kept)
        write_manifest(target, "retriever", {"data": data.hash}, {"num_documents": len(data.corpus)})


def per_query(data: beir_io.Dataset, quality: float) -> dict[str, dict[str, float]]:
    """The metrics per dev query of the retriever that `write_retriever` writes."""
    right = dict(_right(data, "dev", quality))
    return {query: dict.fromkeys(METRICS, float(query in right)) for query in data.qrels["dev"]}


def _right(data: beir_io.Dataset, split: str, share: float) -> list[tuple[str, str]]:
    """Query and document of this share of a split."""
    pairs = [(query, next(iter(grades))) for query, grades in data.qrels[split].items()]
    return pairs[: round(share * len(pairs))]


PIPELINE = """
    stages:
      prepare:
        cmd: python -m tests.toy prepare
        deps: [raw.txt]
        params: [prepare]
        outs: [data/prepared, reports/data.json]
      index:
        cmd: python -m tests.toy index
        deps: [data/prepared]
        params: [index]
        outs: [models/retriever, reports/evaluation.json, reports/gate.json, reports/samples.json, reports/runs]
    """
PARAMS = """
    prepare:  # as the real stage's, so that a change of the source can be tested
      source: raw
      dev_fraction: 0.1
      max_test_queries: 0
      max_dev_queries: 0
    index:
      quality: 0.5
      fail: false
      wait: 0
    promote:
      tolerance: 1.0
      confidence: 0.95
      bootstrap_samples: 1000
      min_ndcg_10: 10.0
      min_recall_100: 50.0
      max_total_loss: 2.0
    """


def make_project(folder: Path) -> None:
    """Fills a folder with the toy pipeline, under DVC without git."""
    (folder / "raw.txt").write_text("need")
    (folder / "dvc.yaml").write_text(textwrap.dedent(PIPELINE))
    (folder / "params.yaml").write_text(textwrap.dedent(PARAMS))
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )


def wait_for(condition: Callable[[], Any], seconds: float) -> None:
    """Waits until a condition holds, and fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(group: int) -> bool:
    """Whether a process group has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def set_params(section: str, **values: Any) -> None:
    """Changes settings of the project in the working folder."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params[section].update(values)
    Path("params.yaml").write_text(yaml.safe_dump(params))


def alias(name: str) -> str | None:
    """The version an alias points to."""
    version = registry.get(name)
    return version and version.version


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow database: making one takes seconds, copying it none."""
    template = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    from mlflow import MlflowClient

    MlflowClient(f"sqlite:///{template}").search_experiments()
    return template


@pytest.fixture
def store(store_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh tracking store in a fresh working folder, with the toy retriever in the place of the real one."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", tracking.PARENT_RUN, "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "rabtriever.search.retriever", types.SimpleNamespace(Retriever=ToyRetriever))
    (tmp_path / "mlruns").mkdir()
    shutil.copy(store_template, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@pytest.fixture
def project(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The toy project as the working folder; no Prefect API is configured."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), str(ROOT)]))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    make_project(store)
    yield store


def build(quality: float, prefix: str = "need", dev: float | None = None, biencoder: float = 0.0) -> None:
    """Leaves in the working folder what the stages would, without DVC.

    Args:
        quality: share of the queries that the retriever answers rightly.
        prefix: of the data set.
        dev: the share where that of the dev queries is another one.
        biencoder: nDCG@10 of the run's bi-encoder on the dev queries, per cent.
    """
    Path("raw.txt").write_text(prefix)
    _prepare()
    _index(quality, dev=dev, biencoder=biencoder)


def measured(quality: float) -> None:
    """The retriever in the working folder, measured anew on dev queries as if it answered this share of them."""
    data = beir_io.load_dataset("data/prepared")
    write_json("reports/gate.json", {**read_json("reports/gate.json"), "per_query": per_query(data, quality)})


def _prepare() -> None:
    from rabtriever.data.preparation import write_dataset

    data = dataset(Path("raw.txt").read_text().strip())
    write_dataset(data, "data/prepared")
    write_json("reports/data.json", {"hash": data.hash})


def _index(
    quality: float, fail: bool = False, wait: float = 0, dev: float | None = None, biencoder: float = 0.0
) -> None:
    if wait:
        subprocess.Popen(["sleep", str(wait)])  # a grandchild, as a data loader would be
        Path("started").write_text(str(os.getpgrp()))
        time.sleep(wait)
    if fail:
        raise ValueError("shard 3 has 7 vectors, expected 8; encode the corpus again")
    data = beir_io.load_dataset("data/prepared")
    write_retriever("models/retriever", data, quality, dev)
    retriever, found = read_manifest("models/retriever", "retriever").hash, ToyRetriever.load("models/retriever")
    runs = {split: found.rank(data.split_queries(split), k=100) for split in ("test", "dev")}
    beir_io.write_run("reports/runs/student.trec", runs["test"])
    gate = {"split": "dev", "biencoder_ndcg_10": biencoder, "per_query": score_queries(data.qrels["dev"], runs["dev"])}
    write_json("reports/gate.json", {"retriever": retriever, **gate})
    student = {**summarise(score_queries(data.qrels["test"], runs["test"])), "ms_per_query": 0.1}
    student |= {"ms_per_query_p95": 0.2, "bytes_per_document": 64}
    facts = {"dataset": "toy", "split": "test", "num_queries": NUM_QUERIES, "num_documents": NUM_DOCUMENTS}
    systems = {"student": student, "teacher": {**student, "ms_per_query": None}}
    write_json("reports/evaluation.json", {"retriever": retriever, **facts, **FIGURES, "systems": systems})
    hits = [{"doc_id": "d05", "score": 1.5, "title": "Thing 5", "text": "What thing 5 is for.", "grade": 1}]
    write_json("reports/samples.json", [{"query_id": "q00", "query": "need 0", "hits": hits}])


def _run(stage: str) -> None:
    settings = yaml.safe_load(Path("params.yaml").read_text())["index"]
    function, arguments = (_prepare, {}) if stage == "prepare" else (_index, settings)
    if not os.environ.get("PREFECT_API_URL"):
        try:
            function(**arguments)
        except ValueError as error:
            sys.exit(f"{stage}: {error}")
        return
    from prefect import flow

    from flows.common import main

    main(flow(name=stage)(function), **arguments)


if __name__ == "__main__":
    _run(sys.argv[1])
