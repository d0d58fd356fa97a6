"""From a raw folder to the data that every other stage reads: checked, with three splits, sub-sampled if asked for.

Owns how a dev split is cut and how test and dev are made smaller. Both choose by a hash of the query id, each by one of
its own. So the place of a query depends neither on the order of the files nor on a seed, and a smaller dev is a sample
of the cut.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import atomic_folder, content_hash, write_json, write_manifest
from rabtriever.core.settings import bounded
from rabtriever.data import beir_io, contract
from rabtriever.data.beir_io import DataContractError, Dataset, Qrels
from rabtriever.data.statistics import normalised


@dataclass(frozen=True)
class PrepareParams:
    """Settings of the stage `prepare`.

    Attributes:
        source: Folder in BEIR layout; relative to the repository root, or absolute.
        dev_fraction: Share of the train queries that becomes dev where there is no qrels/dev.tsv; never more queries
            than max_dev_queries.
        max_test_queries: Largest number of test queries that are kept; 0 keeps all.
        max_dev_queries: Largest number of dev queries that are kept; 0 keeps all.
    """

    source: str
    dev_fraction: float = bounded(gt=0, le=0.5)
    max_test_queries: int = bounded(ge=0)
    max_dev_queries: int = bounded(ge=0)


def prepare_data(params: PrepareParams, output: str | Path, report_path: str | Path) -> dict[str, Any]:
    """Writes the prepared data set to `output` and the data report to `report_path`; returns the report.

    Both are written only when the data meet the contract. Until then earlier files stay. The prepared files are sorted
    by id, so that sources which differ only in order give the same bytes.

    Args:
        params: The settings.
        output: Folder for corpus, queries, judgements of three splits, and the manifest.
        report_path: JSON file.

    Raises:
        FileNotFoundError: If the source folder or one of its files is missing.
        DataContractError: If a file is broken, the data break the contract, or the source changes while it is read.
    """
    before = _fingerprint(params.source)
    complete, was_cut, report = checked(beir_io.load_dataset(params.source), params)
    limits = {"test": params.max_test_queries, "dev": params.max_dev_queries}
    final = sampled(complete, limits)
    report = {
        "source": Path(params.source).name,
        "hash": final.hash,
        **report,
        "dev_cut_from_train": was_cut,
        "kept_queries": {split: len(final.qrels[split]) for split in beir_io.SPLITS},
    }
    if _fingerprint(params.source) != before:
        raise DataContractError(f"{params.source} changed while it was read; run again when it is complete")
    write_dataset(final, output)
    write_json(report_path, report)
    return report


def checked(dataset: Dataset, params: PrepareParams) -> tuple[Dataset, bool, dict[str, Any]]:
    """The data set with a dev split, whether that split was cut from train, and the report of the contract.

    Raises:
        DataContractError: If the data break the contract; the message names only files that exist.
    """
    complete, was_cut = with_dev(dataset, params.dev_fraction, params.max_dev_queries)
    try:
        return complete, was_cut, contract.check_dataset(complete)
    except DataContractError:
        contract.check_dataset(dataset)  # tells a fault of a dev split that was cut as one of qrels/train.tsv
        raise


def check_folder(folder: str | Path, dev_fraction: float = 0.1) -> dict[str, Any]:
    """The data report of a folder in BEIR layout that meets the data contract; nothing is written.

    A missing dev split is cut from train as the stage `prepare` would cut it.

    Args:
        folder: The data set, as `beir_io.load_dataset` reads it.
        dev_fraction: Expected share of the train queries that becomes dev where there is no qrels/dev.tsv.

    Returns:
        "source" (name of the folder), "hash" (identity of the data as they are in the folder), "dev_cut_from_train",
        and what `contract.check_dataset` reports.

    Raises:
        FileNotFoundError: If the folder or one of its files is missing.
        DataContractError: If a file is broken or the data break the contract; the message lists every broken
            expectation with its first rows and what to do.
    """
    dataset = beir_io.load_dataset(folder)
    _, was_cut, report = checked(dataset, PrepareParams(str(folder), dev_fraction, 0, 0))
    return {"source": Path(folder).resolve().name, "hash": dataset.hash, "dev_cut_from_train": was_cut, **report}


def _fingerprint(source: str) -> str | None:
    return content_hash(source) if Path(source).is_dir() else None


def with_dev(dataset: Dataset, fraction: float, limit: int = 0) -> tuple[Dataset, bool]:
    """The data set with a dev split, and whether that split had to be cut from train.

    A query becomes dev when the hash of its id falls below `fraction`, so that it stays in dev as data are added.
    Queries of one text stay together and share the hash of their first id; otherwise train texts would leak into dev.
    If no hash falls below `fraction`, the query with the lowest hash becomes dev. Queries beyond the limit stay in
    train.

    Args:
        dataset: Data with or without a dev split.
        fraction: Expected share of train, between 0 and 1.
        limit: Number of dev queries that is enough; 0 takes all. Queries without a relevant document do not count.
            Queries of one text may exceed the limit a little.

    Raises:
        DataContractError: If train has fewer than two different queries.
    """
    if "dev" in dataset.qrels:
        return dataset, False
    groups: dict[str, list[str]] = {}
    for query_id in sorted(dataset.qrels["train"]):
        groups.setdefault(normalised(dataset.queries.get(query_id, query_id)), []).append(query_id)
    ordered = sorted(groups.values(), key=lambda group: _hash_fraction("dev", group[0]))
    if len(ordered) < 2:
        raise DataContractError(
            f"qrels/train.tsv judges {len(ordered)} different queries and there is no qrels/dev.tsv; expected two or "
            "more to cut a dev split from; add judgements or a dev file"
        )
    num_dev = min(max(sum(_hash_fraction("dev", group[0]) < fraction for group in ordered), 1), len(ordered) - 1)
    train = dataset.qrels["train"]
    dev_ids = _enough(ordered[:num_dev], train, limit)
    qrels = {
        "train": {query_id: grades for query_id, grades in train.items() if query_id not in dev_ids},
        "dev": {query_id: grades for query_id, grades in train.items() if query_id in dev_ids},
        "test": dataset.qrels["test"],
    }
    return Dataset(dataset.corpus, dataset.queries, qrels), True


def _enough(groups: list[list[str]], qrels: Qrels, limit: int) -> set[str]:
    """The queries of the first groups that together have `limit` queries with a relevant document; 0 takes all."""
    chosen: set[str] = set()
    useful = 0
    for group in groups:
        if limit and useful >= limit:
            break
        chosen |= set(group)
        useful += sum(max(qrels[query_id].values(), default=0) >= 1 for query_id in group)
    return chosen


def sampled(dataset: Dataset, limits: dict[str, int]) -> Dataset:
    """The data set with at most `limits` queries per split, and without queries that nobody judged.

    Where a split is made smaller, queries without a relevant document go first, as no metric is computed for them. Of
    the others the queries with the lowest hashes stay.

    Args:
        dataset: Data that meet the contract.
        limits: Largest number of queries by split; 0, or no entry, keeps all.
    """
    qrels = {split: _fewest(grades, limits.get(split, 0)) for split, grades in dataset.qrels.items()}
    judged = {query_id for grades in qrels.values() for query_id in grades}
    queries = {query_id: text for query_id, text in dataset.queries.items() if query_id in judged}
    return Dataset(dataset.corpus, queries, qrels)


def _fewest(qrels: Qrels, limit: int) -> Qrels:
    if not limit or len(qrels) <= limit:
        return qrels
    useless = {query_id: max(grades.values(), default=0) < 1 for query_id, grades in qrels.items()}
    chosen = sorted(qrels, key=lambda query_id: (useless[query_id], _hash_fraction("sample", query_id), query_id))
    return {query_id: qrels[query_id] for query_id in chosen[:limit]}


def _hash_fraction(purpose: str, query_id: str) -> float:
    """A number in [0, 1) that depends on these two alone; numbers of different purposes are unrelated."""
    return int.from_bytes(hashlib.sha256(f"{purpose} {query_id}".encode()).digest()[:6]) / 2**48


def write_dataset(dataset: Dataset, folder: str | Path) -> None:
    """Writes a data set as an artefact of kind "data", sorted by id; it replaces an earlier one in `folder`."""
    with atomic_folder(folder) as temporary:
        beir_io.write_corpus(temporary / "corpus.jsonl", dict(sorted(dataset.corpus.items())))
        beir_io.write_queries(temporary / "queries.jsonl", dict(sorted(dataset.queries.items())))
        for split, qrels in dataset.qrels.items():
            ordered = {query_id: dict(sorted(grades.items())) for query_id, grades in sorted(qrels.items())}
            beir_io.write_qrels(temporary / "qrels" / f"{split}.tsv", ordered)
        counts = {f"{split}_queries": len(qrels) for split, qrels in dataset.qrels.items()}
        info = {"dataset_hash": dataset.hash, "documents": len(dataset.corpus), **counts}
        write_manifest(temporary, "data", {}, info)
