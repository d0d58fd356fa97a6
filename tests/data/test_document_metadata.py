"""What else is known of a document: kept where there is something, and without a trace where there is nothing."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from rabtriever.data import beir_io
from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.documents import DataContractError, document_row, parse_document
from rabtriever.data.preparation import write_dataset

CORPUS = {"d1": Document("d1", "Kettle", "Boils water."), "d2": Document("d2", "", "sweeps ☕ dust")}
QUERIES, QRELS = {"q": "tea"}, {"train": {"q": {"d1": 2}}, "test": {"q": {"d2": 0}}}
# taken before a document could have metadata
HASH = "5b9ce9cda79b1b69"
BYTES = "713cad5d9d5412d9e37df391a67e2cf329e078c042c44120dd383504ef7b220e"


def _bytes(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_metadata_nothing_changes(tmp_path: Path) -> None:
    """Prevents a new identity for every data set and retriever there is, and a retraining of all of them."""
    beir_io.write_corpus(tmp_path / "corpus.jsonl", CORPUS)
    assert _bytes(tmp_path / "corpus.jsonl") == BYTES
    assert Dataset(CORPUS, QUERIES, QRELS).hash == HASH
    rows = [{"_id": "d1", "title": "Kettle", "text": "Boils water.", "metadata": {}}]
    rows.append({"_id": "d2", "text": "sweeps ☕ dust", "metadata": None, "url": "ignored"})
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert beir_io.read_corpus(tmp_path / "corpus.jsonl") == CORPUS


def test_household_has_the_bytes_and_the_hash_from_before(tmp_path: Path) -> None:
    """Prevents the committed data set from being another one."""
    household = beir_io.load_dataset("data/household")
    assert household.hash == "e9f0d73ff6f91cab"
    write_dataset(household, tmp_path / "prepared")
    expected = "af710d7ea7e300e9e82fa9cdee7cf835919a9870b24e1aa93792aa4521ee19ab"
    assert _bytes(tmp_path / "prepared/corpus.jsonl") == expected


def test_metadata_are_kept_through_preparing(tmp_path: Path) -> None:
    """Prevents filters that find nothing, because a stage has dropped what they ask for."""
    corpus = {**CORPUS, "d1": CORPUS["d1"]._replace(metadata={"room": "kitchen", "tags": ["hot", "☕"], "price": 2.5})}
    data = Dataset(corpus, QUERIES, QRELS)
    write_dataset(data, tmp_path / "prepared")
    prepared = beir_io.load_dataset(tmp_path / "prepared")
    assert prepared.corpus == corpus and prepared.hash == data.hash
    assert prepared.corpus["d1"].contents == "Kettle. Boils water.", "models do not read metadata"


def test_metadata_are_part_of_the_identity_in_any_order() -> None:
    """Prevents changed metadata that go unnoticed, and a change where keys only stand in another order."""
    hashes = [
        Dataset({"d": Document("d", "", "x", metadata)}, {}, {}).hash
        for metadata in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {})
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ('"new"', "'metadata' is 'new', expected an object"),
        ('[{"a": 1}]', "expected an object"),
        ("0", "'metadata' is 0, expected an object"),
        ('{"price": NaN}', "'metadata' is not plain JSON"),
        ('{"price": 1e999}', "'metadata' is not plain JSON"),
        ('{"name": "\\ud800"}', "'metadata' is not plain JSON"),
    ],
)
def test_metadata_that_no_json_can_hold_are_refused(tmp_path: Path, metadata: str, told: str) -> None:
    """Prevents a corpus that is read, and an answer of the server that cannot be written."""
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"_id": "a", "text": "x"}}\n{{"_id": "b", "text": "x", "metadata": {metadata}}}\n')
    with pytest.raises(DataContractError, match=f"^{path}:2: .*{told}"):
        beir_io.read_corpus(path)


def test_a_corpus_from_standard_input_is_read_as_a_file() -> None:
    """Prevents documents that a file may hold, and a pipe not."""
    lines = io.BytesIO(b'\xef\xbb\xbf{"_id": "a", "text": "x", "metadata": {"n": 1}}\r\n\n{"_id": "a", "text": "y"}\n')
    with pytest.raises(DataContractError, match="^standard input:3: id 'a' occurs a second time"):
        beir_io.parse_corpus(lines, "standard input")
    lines.seek(0)
    assert beir_io.parse_corpus(lines.readlines()[:1], "standard input") == {"a": Document("a", "", "x", {"n": 1})}
    with pytest.raises(DataContractError, match="^standard input:1: the file is not UTF-8"):
        beir_io.parse_corpus([b"\xff"], "standard input")


def test_a_row_is_the_document_again() -> None:
    """Prevents a document that is another one after it was stored."""
    for document in (*CORPUS.values(), Document("d", "t", "", {"a": {"b": [None, True]}})):
        assert parse_document(document_row(document), "here") == document
