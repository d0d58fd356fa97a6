"""Labels are kept line by line, and become training judgements only when somebody asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rabtriever.data.beir_io import Dataset, Document, load_dataset
from rabtriever.data.preparation import write_dataset
from rabtriever.server.labels import HEADER, Label, Labels, add_to_training, latest, query_id


def test_a_label_is_a_line(tmp_path: Path):
    """Another tool reads the first three columns as judgements."""
    labels = Labels(tmp_path / "labels/labels.tsv")
    made = labels.add("I am\tcold,\nand it rains", "d7", 1, "Ann\tB", "3")
    labels.add("I AM cold, and it rains!", "d7", 0, "", None)
    lines = labels.path.read_text().splitlines()
    assert lines[0] == "\t".join(HEADER) == "query-id\tcorpus-id\tscore\tuser\ttime\tversion\tquery"
    assert lines[1] == f"{made.query_id}\td7\t1\tAnn B\t{made.time}\t3\tI am cold, and it rains"
    assert labels.read()[0] == made
    assert [one.user for one in labels.read()] == ["Ann B", "unknown"]
    assert len(latest(labels.read())) == 1, "the second corrects the first: equal queries have one id"
    assert latest(labels.read())[made.query_id, "d7"].grade == 0


@pytest.mark.parametrize(
    ("query", "grade", "user", "message"),
    [("  ", 1, "", "query is blank"), ("tea", 2, "", "grade is 2"), ("tea", 1, "x" * 81, "name has 81 characters")],
)
def test_what_is_no_label(tmp_path: Path, query: str, grade: int, user: str, message: str):
    """A line that no reader understands would stop the next retraining."""
    labels = Labels(tmp_path / "labels.tsv")
    with pytest.raises(ValueError, match=message):
        labels.add(query, "d1", grade, user, None)
    assert not labels.path.exists()


def test_a_broken_line_is_named(tmp_path: Path):
    """Somebody has edited the file."""
    labels = Labels(tmp_path / "labels.tsv")
    labels.add("tea", "d1", 1, "ann", "1")
    labels.path.write_text(labels.path.read_text() + "one\ttwo\n")
    with pytest.raises(ValueError, match=r"labels.tsv:3: found 'one\\ttwo', expected 7 columns"):
        labels.read()


def test_shown_counts_pairs_and_users(tmp_path: Path):
    """The page says how much there is."""
    labels = Labels(tmp_path / "labels.tsv")
    for document, grade, user in (("a", 1, "ann"), ("b", 0, "ann"), ("a", 0, "bob")):
        labels.add("tea", document, grade, user, "1")
    shown = labels.shown()
    assert (shown["total"], shown["pairs"], shown["helps"]) == (3, 2, 0)
    assert shown["users"] == {"ann": 2, "bob": 1}
    assert [one["user"] for one in shown["labels"]] == ["bob", "ann", "ann"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Data with one query in each split."""
    corpus = {name: Document(name, name, name) for name in "abc"}
    queries = {"t": "tea please", "e": "held out", "v": "also held out"}
    qrels = {"train": {"t": {"a": 2}}, "dev": {"v": {"a": 1}}, "test": {"e": {"b": 1}}}
    write_dataset(Dataset(corpus, queries, qrels), tmp_path / "source")
    return tmp_path / "source"


def label(query: str, document: str, grade: int = 1) -> Label:
    """A label that somebody has given."""
    return Label(query_id(query), document, grade, "ann", "2026-12-01T00:00:00+00:00", "1", query)


def test_labels_become_training_judgements(source: Path, tmp_path: Path):
    """Test queries stay out of training, and what was judged with care stays."""
    given = [
        label("Tea, please!", "b"),  # the training query, though written otherwise
        label("tea please", "a", 0),  # judged already
        label("held out", "c"),
        label("new need", "c", 0),
        label("new need", "c"),  # corrects the line before
        label("new need", "gone"),
        label("nothing helped", "a", 0),
    ]
    taken = add_to_training(given, source, tmp_path / "target")
    made = load_dataset(tmp_path / "target")
    assert taken == (2, 1, 1, 1, 1)
    assert made.qrels["train"] == {"t": {"a": 2, "b": 1}, query_id("new need"): {"c": 1}}
    assert made.qrels["test"] == {"e": {"b": 1}} and made.qrels["dev"] == {"v": {"a": 1}}
    assert made.queries[query_id("new need")] == "new need" and "nothing helped" not in made.queries.values()


def test_a_target_that_is_there_is_kept(source: Path, tmp_path: Path):
    """Data of somebody else would be lost."""
    with pytest.raises(FileExistsError, match="name another one"):
        add_to_training([], source, source)
