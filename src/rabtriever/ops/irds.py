"""Data sets of ir_datasets as folders in BEIR layout: `irds:beir/scifact` in the place of a folder's name.

A set is written once, below data/sets, and read from there afterwards. Delete its folder to fetch it again.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rabtriever.core.artifacts import atomic_folder, atomic_write, recover_folder
from rabtriever.core.progress import at_work
from rabtriever.data.beir_io import Qrels, Queries, write_qrels, write_queries

PREFIX = "irds:"
HOME = Path("data/sets")
_LIKE = f"{PREFIX}beir/scifact, or {PREFIX}train=ID,dev=ID,test=ID (dev may be missing)"
_PARTS = {"train": ("train",), "dev": ("dev", "valid", "validation"), "test": ("test",)}  # names below a set's own


def local_folder(source: str) -> str:
    """The folder that an `irds:` address stands for, written where it is not there yet; other sources as they are.

    `irds:SET` takes SET/train, SET/test and, where it is there, SET/dev or SET/valid.

    Args:
        source: an address, or a folder.

    Raises:
        FileNotFoundError: ir_datasets is not installed, or a file has to be asked for by hand.
        ConnectionError: a file cannot be downloaded.
        ValueError: there is no such set, or it has no judgements, or no train or test part.
    """
    if not source.startswith(PREFIX):
        return source
    folder = HOME / re.sub(r"[^\w.]+", "-", source)
    recover_folder(folder)
    if not folder.is_dir():
        sets = _parts(source.removeprefix(PREFIX), _library())
        with at_work(f"{source}: fetching and writing it to {folder}"):
            left_out = _downloading(source, lambda: _write(sets, folder))
        told = ", ".join(f"{count:,} {what}" for what, count in left_out.items())
        print(f"{source} is in {folder} now" + (f"; left out: {told}" if told else ""), flush=True)
    return str(folder)


def _library() -> ModuleType:
    try:
        import ir_datasets
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"{PREFIX} needs the Python package {error.name}, which is not installed; "
            "install it: make setup EXTRAS=irds, or pip install 'rabtriever[irds]'"
        ) from error
    return ir_datasets


def _parts(address: str, library: ModuleType) -> dict[str, Any]:
    """The sets of ir_datasets by split."""
    named = dict(part.partition("=")[::2] for part in address.split(",")) if "=" in address else {}
    if named and not {"train", "test"} <= set(named) <= set(_PARTS):
        raise ValueError(f"{PREFIX}{address} names {', '.join(named)}, expected train and test; write {_LIKE}")
    sets = {split: _load(one, library) for split, one in named.items()} or _below(address, library)
    for split, found in sets.items():
        if not (found.has_docs() and found.has_queries() and found.has_qrels()):
            raise ValueError(
                f"{PREFIX}{address}: {split} has no documents, queries or judgements, expected all three; "
                "name another set"
            )
        if found.docs_handler() is not sets["train"].docs_handler():
            raise ValueError(f"{PREFIX}{address}: {split} has other documents than train; name sets of one corpus")
    return sets


def _below(name: str, library: ModuleType) -> dict[str, Any]:
    """The parts of a set by split."""
    known = set(library.registry)
    places = {
        split: next((f"{name}/{end}" for end in ends if f"{name}/{end}" in known), "") for split, ends in _PARTS.items()
    }
    if not places["train"] or not places["test"]:
        _load(name, library)
        parent = name.rpartition("/")[0]
        if {f"{parent}/train", f"{parent}/test"} <= known:
            raise ValueError(f"{PREFIX}{name} is one part of a set, expected the set; write {PREFIX}{parent}")
        judged = sorted(one for one in known if one.startswith(f"{name}/") and library.load(one).has_qrels())
        raise ValueError(
            f"{PREFIX}{name} has no {'train' if not places['train'] else 'test'} part of its own "
            f"(judged parts: {', '.join(judged) or 'none'}); choose two sets: {PREFIX}train=ID,test=ID"
        )
    return {split: _load(place, library) for split, place in places.items() if place}


def _load(name: str, library: ModuleType) -> Any:
    try:
        return library.load(name)
    except KeyError:
        near = difflib.get_close_matches(name, library.registry, n=1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else "`ir_datasets list` prints all of them"
        raise ValueError(
            f"{PREFIX}{name}: ir_datasets has no set {name!r}, expected one like {_LIKE}; {hint}"
        ) from None


def _downloading(source: str, write: Callable[[], Counter[str]]) -> Counter[str]:
    """What `write` returns; a file that does not arrive is told as such."""
    import requests

    try:
        return write()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{source}: {error} is not there, and ir_datasets cannot fetch it; get it as ir_datasets says above"
        ) from error
    except (requests.exceptions.RequestException, RuntimeError) as error:
        raise ConnectionError(
            f"{source} could not be downloaded ({error}); see whether this machine reaches it, and run again"
        ) from error


class _Part(NamedTuple):
    """A split's queries and judgements."""

    queries: Queries
    qrels: Qrels


def _write(sets: dict[str, Any], folder: Path) -> Counter[str]:
    """Writes the files of the layout, all or none; returns what was left out, as the contract refuses it."""
    left_out: Counter[str] = Counter()
    parts = {split: _part(found) for split, found in sets.items()}
    judged = {doc_id for part in parts.values() for grades in part.qrels.values() for doc_id in grades}
    with atomic_folder(folder) as target:
        written = _write_documents(target / "corpus.jsonl", sets["train"], judged, left_out)
        queries: Queries = {}
        for split, part in parts.items():
            qrels = _useful(part, split, written, left_out)
            queries |= {query_id: part.queries[query_id] for query_id in qrels}
            write_qrels(target / "qrels" / f"{split}.tsv", qrels)
        write_queries(target / "queries.jsonl", queries)
    return +left_out  # without what there was none of


def _part(found: Any) -> _Part:
    qrels: Qrels = {}
    for one in found.qrels_iter():
        qrels.setdefault(one.query_id, {})[one.doc_id] = max(int(one.relevance), 0)  # below 0 is not relevant either
    texts = {one.query_id: one.default_text() for one in found.queries_iter()}
    return _Part({query_id: text for query_id, text in texts.items() if text.strip()}, qrels)


def _write_documents(path: Path, found: Any, judged: set[str], left_out: Counter[str]) -> set[str]:
    """Writes the documents one after the other, as there may be millions; returns those of `judged` that it wrote."""
    written: set[str] = set()
    with atomic_write(path) as handle:
        for row in _documents(found):
            if not (row["title"] + row["text"]).strip():
                left_out["blank documents"] += 1
                continue
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            if row["_id"] in judged:
                written.add(row["_id"])
    return written


def _documents(found: Any) -> Iterator[dict[str, str]]:
    for one in found.docs_iter():
        titled = {"title", "text"} <= set(one._fields)
        title, text = (one.title or "", one.text or "") if titled else ("", one.default_text())
        yield {"_id": one.doc_id, "title": title, "text": text}


def _useful(part: _Part, split: str, written: set[str], left_out: Counter[str]) -> Qrels:
    """The judgements of known queries and documents; a training query has to have a relevant one."""
    kept: Qrels = {}
    for query_id, grades in part.qrels.items():
        known = {doc_id: grade for doc_id, grade in grades.items() if doc_id in written and query_id in part.queries}
        left_out["judgements of unknown queries or documents"] += len(grades) - len(known)
        if split == "train" and not any(known.values()):
            left_out["train queries without a relevant document"] += 1
        elif known:
            kept[query_id] = known
    return kept
