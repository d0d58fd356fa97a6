"""`rabtriever inspect`, `rabtriever data check` and `rabtriever evaluate`: what is in a folder, and how good."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rabtriever.cli.opening import open_retriever, told_when_slow
from rabtriever.ops.irds import local_folder
from rabtriever.ops.terminal import json_line, one_line


def inspect(parsed: argparse.Namespace) -> None:
    """Checks an artefact folder and shows its manifest."""
    from rabtriever.core.artifacts import MANIFEST_NAME, read_json, read_manifest

    path = Path(parsed.folder) / MANIFEST_NAME
    found = read_json(path) if path.is_file() else {}
    manifest = read_manifest(parsed.folder, found.get("kind", "artefact") if isinstance(found, dict) else "artefact")
    print(f"kind     {manifest.kind}\nhash     {manifest.hash}")
    for name, parent in manifest.parents.items():
        print(one_line(f"parent   {name}: {parent}"))
    for name, value in manifest.info.items():
        print(f"info     {one_line(name)}: {json_line(value)}")
    width = max((len(name) for name in manifest.files), default=0)
    for name, record in manifest.files.items():
        print(f"file     {one_line(name):<{width}}  {record['bytes']:>13,} bytes  {record['sha256'][:12]}")
    total = sum(record["bytes"] for record in manifest.files.values())
    print(f"total    {total:,} bytes in {len(manifest.files)} files, all as the manifest says")


def check(parsed: argparse.Namespace) -> None:
    """Checks a data set against the contract."""
    from rabtriever.data.beir_io import load_dataset

    dataset = load_dataset(local_folder(parsed.folder))
    with told_when_slow(f"checking {len(dataset.corpus):,} documents and {len(dataset.queries):,} queries"):
        from rabtriever.data.contract import check_dataset
        from rabtriever.data.statistics import notices

        report = check_dataset(dataset)
    splits = ", ".join(f"{split} {len(qrels):,}" for split, qrels in dataset.qrels.items())
    print(f"{one_line(parsed.folder)} meets the contract ({len(report['expectations'])} expectations)")
    print(f"{len(dataset.corpus):,} documents, {len(dataset.queries):,} queries; judged: {one_line(splits)}")
    for notice in notices(report):
        print(notice)


def evaluate(parsed: argparse.Namespace) -> None:
    """Measures a retriever on a data set."""
    from rabtriever.evaluation.folder import check_installed
    from rabtriever.evaluation.folder import evaluate as measure

    check_installed()
    retriever = open_retriever(parsed.model)
    with told_when_slow(f"searching for the queries of {parsed.folder}"):
        metrics = measure(retriever, local_folder(parsed.folder), parsed.split)
    if parsed.json:
        print(json.dumps(metrics))
        return
    for name, value in metrics.items():
        print(f"{name:<10} {value:>8}" if isinstance(value, int) else f"{name:<10} {value:8.2f} %")
