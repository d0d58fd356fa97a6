"""Corpora, queries, judgements and runs: their types, readers and writers, and a data set as a whole.

Owns the file formats: the BEIR folder layout (JSON lines for texts, tab-separated judgements, each file plain or with
`.gz` appended) and TREC run files. A reader stops at the first structural fault and names file and line. Faults that
span several files (unknown ids, splits that overlap) are found by `contract`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import atomic_write, recover_folder
from rabtriever.data.documents import (
    DataContractError,
    Document,
    checked_id,
    document_row,
    parse_document,
    required_string,
)

SPLITS = ("train", "dev", "test")
QRELS_HEADER = ("query-id", "corpus-id", "score")
MAX_GRADE = 1000  # metrics keep a table as long as the highest grade
LAYOUT = "corpus.jsonl, queries.jsonl, qrels/train.tsv, qrels/test.tsv, optionally qrels/dev.tsv (each may end in .gz)"


Corpus = dict[str, Document]
Queries = dict[str, str]
Qrels = dict[str, dict[str, int]]
Run = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Dataset:
    """A corpus, queries, and judgements by split ("train", "dev", "test").

    Attributes:
        corpus: Documents by id.
        queries: Query texts by id, of every split.
        qrels: Per split: query id -> document id -> grade, where 0 means judged not relevant.
    """

    corpus: Corpus
    queries: Queries
    qrels: dict[str, Qrels]

    @cached_property
    def hash(self) -> str:
        """Identity of the content (16 hex digits); the order of documents, queries and judgements does not matter."""
        # without metadata a data set keeps the identity that it had before there were any
        lines = [["document", *one[:3], *([one.metadata] if one.metadata else [])] for one in self.corpus.values()]
        lines += [["query", query_id, text] for query_id, text in self.queries.items()]
        for split, qrels in self.qrels.items():
            lines += [["grade", split, q, d, grade] for q, grades in qrels.items() for d, grade in grades.items()]
        digest = hashlib.sha256()
        for line in sorted(json.dumps(line, sort_keys=True) for line in lines):
            digest.update(line.encode() + b"\n")
        return digest.hexdigest()[:16]

    def split_queries(self, split: str) -> Queries:
        """The texts of the queries judged in `split`, in the order of the judgements."""
        return {query_id: self.queries[query_id] for query_id in self.qrels[split]}


def load_dataset(folder: str | Path) -> Dataset:
    """The data set in a folder of BEIR layout; a missing dev split is left out of `qrels`.

    Raises:
        FileNotFoundError: If the folder, or a file other than qrels/dev.tsv, is missing.
        DataContractError: At the first structural fault of a file.
    """
    folder = Path(folder)
    recover_folder(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected a folder with {LAYOUT}")
    qrels = {}
    for split in SPLITS:
        path = folder / "qrels" / f"{split}.tsv"
        if split == "dev" and not _spellings(path):
            continue
        qrels[split] = read_qrels(path)
    return Dataset(read_corpus(folder / "corpus.jsonl"), read_queries(folder / "queries.jsonl"), qrels)


def read_corpus(path: str | Path) -> Corpus:
    """The documents of a JSONL file with `_id`, `text` and, optional, `title` and `metadata` on each line.

    Other keys are ignored.

    Raises:
        FileNotFoundError: If neither `path` nor `path`.gz exists.
        DataContractError: Naming file and line, for broken JSON, a missing or wrongly typed key, a repeated id or a
            blank document.
    """
    return _corpus(_lines(path))


def parse_corpus(lines: Iterable[bytes], name: str) -> Corpus:
    """The documents of JSON lines that come from elsewhere than a file, as `read_corpus` reads them.

    Args:
        lines: UTF-8 lines, such as those of standard input.
        name: what messages call them.

    Raises:
        DataContractError: as of `read_corpus`.
    """
    return _corpus(_decoded(lines, name))


def _corpus(lines: Iterable[tuple[str, str]]) -> Corpus:
    corpus: Corpus = {}
    for where, row in _json_rows(lines):
        document = parse_document(row, where)
        if document.doc_id in corpus:
            raise _repeated(document.doc_id, where)
        corpus[document.doc_id] = document
    return corpus


def read_queries(path: str | Path) -> Queries:
    """The query texts of a JSONL file with `_id` and `text` on each line; other keys are ignored.

    Raises:
        FileNotFoundError: If neither `path` nor `path`.gz exists.
        DataContractError: Naming file and line, for broken JSON, a missing or wrongly typed key, a repeated id or a
            blank text.
    """
    queries: Queries = {}
    for where, row in _json_rows(_lines(path)):
        query_id, text = checked_id(required_string(row, "_id", where), where), required_string(row, "text", where)
        if query_id in queries:
            raise _repeated(query_id, where)
        if not text.strip():
            raise DataContractError(f"{where}: query {query_id!r} is blank; give it a text or remove it")
        queries[query_id] = text
    return queries


def read_qrels(path: str | Path) -> Qrels:
    """The judgements of a tab-separated file with the header `query-id corpus-id score`.

    Raises:
        FileNotFoundError: If neither `path` nor `path`.gz exists.
        DataContractError: Naming file and line, if the header is missing, a line does not have three columns, a grade
            is not an integer of 0 or more, or a pair is judged twice with different grades.
    """
    qrels: Qrels = {}
    lines = _lines(path)
    where, header = next(lines, (f"{path}:1", ""))
    if tuple(column.strip() for column in header.split("\t")) != QRELS_HEADER:
        expected = "\\t".join(QRELS_HEADER)
        raise DataContractError(f"{where}: found {header!r} as first line, expected the header {expected!r}; add it")
    for where, line in lines:
        columns = line.split("\t")
        if len(columns) != 3:
            raise DataContractError(f"{where}: found {len(columns)} columns, expected 3 separated by tabs: {line!r}")
        query_id, doc_id = (checked_id(value, where) for value in columns[:2])
        grade = _grade(columns[2], where)
        if qrels.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise DataContractError(
                f"{where}: query {query_id!r} and document {doc_id!r} have grade {grade} here and grade "
                f"{qrels[query_id][doc_id]} above; keep one of the lines"
            )
    return qrels


def read_run(path: str | Path) -> Run:
    """A system's output in a TREC run file (query id, Q0, document id, rank, score, tag); higher scores are better.

    Raises:
        FileNotFoundError: If neither `path` nor `path`.gz exists.
        DataContractError: Naming file and line, if a line does not have six columns, a score is not a finite number or
            a pair is repeated.
    """
    run: Run = {}
    for where, line in _lines(path, "a TREC run file"):
        columns = line.split()
        if len(columns) != 6:
            raise DataContractError(
                f"{where}: found {len(columns)} columns, expected the 6 columns of a TREC run: {line!r}"
            )
        try:
            score = float(columns[4])
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise DataContractError(f"{where}: score {columns[4]!r} is not a finite number; correct it")
        if columns[2] in run.setdefault(columns[0], {}):
            raise DataContractError(
                f"{where}: document {columns[2]!r} is ranked twice for query {columns[0]!r}; keep one"
            )
        run[columns[0]][columns[2]] = score
    return run


def write_corpus(path: str | Path, corpus: Corpus) -> None:
    """Writes documents as JSON lines that `read_corpus` reads, in the order given."""
    with atomic_write(path) as handle:
        for document in corpus.values():
            handle.write(json.dumps(document_row(document), ensure_ascii=False) + "\n")


def write_queries(path: str | Path, queries: Queries) -> None:
    """Writes queries as JSON lines that `read_queries` reads, in the order given."""
    with atomic_write(path) as handle:
        for query_id, text in queries.items():
            handle.write(json.dumps({"_id": query_id, "text": text}, ensure_ascii=False) + "\n")


def write_qrels(path: str | Path, qrels: Qrels) -> None:
    """Writes judgements as a file that `read_qrels` reads, in the order given; a query without any leaves no line."""
    with atomic_write(path) as handle:
        handle.write("\t".join(QRELS_HEADER) + "\n")
        for query_id, grades in qrels.items():
            handle.writelines(f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in grades.items())


def write_run(path: str | Path, run: Run, tag: str = "rabtriever") -> None:
    """Writes a run as a TREC file, best first (score descending, then document id ascending), in full precision."""
    with atomic_write(path) as handle:
        for query_id, scores in run.items():
            ranked = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
            for rank, (doc_id, score) in enumerate(ranked, start=1):
                handle.write(f"{query_id} Q0 {doc_id} {rank} {float(score)!r} {tag}\n")


def _spellings(path: Path) -> list[Path]:
    return [found for found in (path, path.with_name(path.name + ".gz")) if found.is_file()]


def _lines(path: str | Path, expected: str = f"a folder with {LAYOUT}") -> Iterator[tuple[str, str]]:
    """("file:line", text) of each line that is not blank, of `path` or `path`.gz."""
    path = Path(path)
    found = _spellings(path)
    if not found:
        raise FileNotFoundError(f"there is no file {path} (nor {path.name}.gz); expected {expected}")
    if len(found) > 1:
        raise DataContractError(f"found both {path} and {path.name}.gz, expected one of them; remove the other")
    path = found[0]
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as handle:
        yield from _decoded(handle, str(path))


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, str]]:
    """("name:line", text) of each line that is not blank."""
    number = 0
    try:
        for number, raw in enumerate(lines, start=1):  # bytes: only a line feed ends a line
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            if line.strip():
                yield f"{name}:{number}", line
    except UnicodeDecodeError as error:
        raise DataContractError(
            f"{name}:{number}: the file is not UTF-8 ({error.reason}); convert it to UTF-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataContractError(
            f"{name}:{number + 1}: the gzip file is damaged ({error}); compress the file again"
        ) from error


def _json_rows(lines: Iterable[tuple[str, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataContractError(f"{where}: broken JSON ({error}); expected one JSON object per line") from error
        if not isinstance(row, dict):
            raise DataContractError(f"{where}: found {type(row).__name__}, expected one JSON object per line")
        yield where, row


def _repeated(value: str, where: str) -> DataContractError:
    return DataContractError(f"{where}: id {value!r} occurs a second time; rename or remove one of the lines")


def _grade(text: str, where: str) -> int:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", text):  # Python itself refuses thousands of digits
        raise DataContractError(f"{where}: grade {text[:40]!r} is not an integer; expected 0, 1, 2, ...")
    grade = int(text)
    if grade < 0:
        raise DataContractError(f"{where}: grade {grade} is negative; expected 0 (judged not relevant) or more")
    if grade > MAX_GRADE:
        raise DataContractError(f"{where}: grade {grade} is above {MAX_GRADE}; check whether the column holds grades")
    return grade
