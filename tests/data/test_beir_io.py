"""Readers, writers and the data set's identity."""

import gzip
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabtriever.data import beir_io
from rabtriever.data.beir_io import DataContractError, Dataset, Document

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
IDS = st.text(min_size=1, max_size=8).filter(lambda text: not re.search(r"[\s\ufeff\0]", text))
TEXTS = st.text(max_size=30)
FULL_TEXTS = TEXTS.filter(str.strip)
CORPORA = st.dictionaries(IDS, st.tuples(TEXTS, FULL_TEXTS), max_size=6).map(
    lambda rows: {doc_id: Document(doc_id, *row) for doc_id, row in rows.items()}
)
QRELS = st.dictionaries(IDS, st.dictionaries(IDS, st.integers(0, 5), min_size=1, max_size=4), max_size=5)
RUNS = st.dictionaries(
    IDS, st.dictionaries(IDS, st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=4), max_size=5
)


@SETTINGS
@given(corpus=CORPORA)
def test_corpus_round_trip(tmp_path, corpus):
    """A text with quotes, line separators or odd Unicode comes back changed, or breaks its line."""
    beir_io.write_corpus(tmp_path / "corpus.jsonl", corpus)
    assert beir_io.read_corpus(tmp_path / "corpus.jsonl") == corpus


@SETTINGS
@given(queries=st.dictionaries(IDS, FULL_TEXTS, max_size=6))
def test_queries_round_trip(tmp_path, queries):
    """A query comes back changed."""
    beir_io.write_queries(tmp_path / "queries.jsonl", queries)
    assert beir_io.read_queries(tmp_path / "queries.jsonl") == queries


@SETTINGS
@given(qrels=QRELS)
def test_qrels_round_trip(tmp_path, qrels):
    """A judgement of 0 gets lost, or ids are mixed up."""
    beir_io.write_qrels(tmp_path / "test.tsv", qrels)
    assert beir_io.read_qrels(tmp_path / "test.tsv") == qrels


@SETTINGS
@given(run=RUNS)
def test_run_round_trip_keeps_scores_exactly(tmp_path, run):
    """Rounding when a run is written makes ties, and another metric."""
    beir_io.write_run(tmp_path / "run.trec", run)
    assert beir_io.read_run(tmp_path / "run.trec") == run


def test_run_is_written_best_first_and_ties_by_id(tmp_path):
    """Tools that trust a run file's order see another ranking than we score."""
    beir_io.write_run(tmp_path / "run.trec", {"q": {"b": 1.0, "c": 2.0, "a": 1.0}}, tag="x")
    lines = (tmp_path / "run.trec").read_text().splitlines()
    assert lines == ["q Q0 c 1 2.0 x", "q Q0 a 2 1.0 x", "q Q0 b 3 1.0 x"]


@pytest.mark.parametrize(
    ("title", "text", "contents"),
    [("T", "x", "T. x"), ("", "x", "x"), (" ", "x", "x"), ("T", "", "T"), ("T", " ", "T")],
)
def test_contents(title, text, contents):
    """A document without a title starts with a stray dot, and its tokens differ."""
    assert Document("d", title, text).contents == contents


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('{"_id": "a", "text": "x"}\n{"_id": "b", "text"', 2, "broken JSON"),
        ('{"_id": "a"}\n', 1, "there is no key 'text'"),
        ('{"id": "a", "text": "x"}\n', 1, "there is no key '_id'"),
        ('{"_id": "a", "text": "x"}\n\n{"_id": "a", "text": "y"}\n', 3, "'a' occurs a second time"),
        ('{"_id": "a", "text": " "}\n', 1, "'a' is blank"),
        ('{"_id": 7, "text": "x"}\n', 1, "'_id' is 7, expected a string"),
        ('{"_id": "a", "text": null}\n', 1, "'text' is None, expected a string"),
        ('{"_id": "a", "text": ["x"]}\n', 1, "expected a string"),
        ('{"_id": "a b", "text": "x"}\n', 1, "'a b' is empty or has whitespace"),
        ('{"_id": "", "text": "x"}\n', 1, "'' is empty"),
        ('{"_id": "a\\u0000b", "text": "x"}\n', 1, "whitespace or NUL"),
        ('["a"]\n', 1, "found list, expected one JSON object per line"),
        ('{"_id": "a", "text": "\\ud800"}\n', 1, "surrogate"),
    ],
)
@pytest.mark.parametrize("read", [beir_io.read_corpus, beir_io.read_queries])
def test_text_fault_is_named_with_its_line(tmp_path, read, content, line, words):
    """A fault in a file of a million lines is reported without its place, or read over."""
    path = tmp_path / "file.jsonl"
    path.write_text(content)
    with pytest.raises(DataContractError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and words in str(caught.value)


def test_title_must_be_a_string(tmp_path):
    """A number as title crashes a tokenizer an hour later."""
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "text": "x", "title": 3}\n')
    with pytest.raises(DataContractError, match=r"corpus.jsonl:1: 'title' is 3, expected a string"):
        beir_io.read_corpus(tmp_path / "corpus.jsonl")


def test_title_may_be_missing_or_null_or_all_there_is(tmp_path):
    """Sets in common use (with metadata, without titles, with titles only) are refused."""
    rows = [{"_id": "a", "text": "x", "metadata": {"url": 1}}, {"_id": "b", "text": "y", "title": None}]
    rows.append({"_id": "c", "text": "", "title": "z"})
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [document.contents for document in beir_io.read_corpus(tmp_path / "corpus.jsonl").values()] == [
        "x",
        "y",
        "z",
    ]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("", 1, "expected the header"),
        ("q\td\t1\n", 1, "expected the header"),
        ("query-id corpus-id score\n", 1, "expected the header"),
        ("query-id\tcorpus-id\tscore\nq\td\n", 2, "found 2 columns"),
        ("query-id\tcorpus-id\tscore\nq\t0\td\t1\n", 2, "found 4 columns"),
        ("query-id\tcorpus-id\tscore\nq\td\tyes\n", 2, "grade 'yes' is not an integer"),
        ("query-id\tcorpus-id\tscore\nq\td\t1.0\n", 2, "grade '1.0' is not an integer"),
        (f"query-id\tcorpus-id\tscore\nq\td\t{'1' * 5000}\n", 2, "is not an integer"),
        ("query-id\tcorpus-id\tscore\nq\td\t\n", 2, "grade '' is not an integer"),
        ("query-id\tcorpus-id\tscore\nq\td\t1_0\n", 2, "grade '1_0' is not an integer"),
        ("query-id\tcorpus-id\tscore\nq\td\t-1\n", 2, "grade -1 is negative"),
        ("query-id\tcorpus-id\tscore\nq\td\t1700000000\n", 2, "grade 1700000000 is above 1000"),
        ("query-id\tcorpus-id\tscore\nq\td\x00\t1\n", 2, "whitespace or NUL"),
        ("query-id\tcorpus-id\tscore\nq\td\t1\nq\td\t2\n", 3, "grade 2 here and grade 1 above"),
        ("query-id\tcorpus-id\tscore\n\td\t1\n", 2, "id '' is empty"),
    ],
)
def test_qrels_fault_is_named_with_its_line(tmp_path, content, line, words):
    """A judgement is read as something else than its author wrote."""
    path = tmp_path / "train.tsv"
    path.write_text(content)
    with pytest.raises(DataContractError) as caught:
        beir_io.read_qrels(path)
    assert str(caught.value).startswith(f"{path}:{line}: ") and words in str(caught.value)


def test_qrels_pair_may_be_repeated_with_its_grade(tmp_path):
    """A harmless repetition stops a run."""
    (tmp_path / "x.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\nq\td\t1\n")
    assert beir_io.read_qrels(tmp_path / "x.tsv") == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("q Q0 d 1 0.5", "found 5 columns"),
        ("q Q0 d 1 high x", "'high' is not a finite number"),
        ("q Q0 d 1 nan x", "'nan' is not a finite number"),
        ("q Q0 e 1 2 x\nq Q0 e 2 1 x", "ranked twice"),
    ],
)
def test_run_fault_is_named(tmp_path, line, words):
    """A NaN score is ranked somewhere, and the metric is wrong."""
    (tmp_path / "run.trec").write_text(line + "\n")
    with pytest.raises(DataContractError, match=words):
        beir_io.read_run(tmp_path / "run.trec")


def test_files_from_windows_are_read(tmp_path):
    """A byte order mark or a carriage return becomes part of an id or a text."""
    (tmp_path / "queries.jsonl").write_bytes(b'\xef\xbb\xbf{"_id": "q", "text": "x"}\r\n\r\n')
    (tmp_path / "train.tsv").write_bytes(b"\xef\xbb\xbfquery-id\tcorpus-id\tscore\r\nq\td\t2\r\n")
    assert beir_io.read_queries(tmp_path / "queries.jsonl") == {"q": "x"}
    assert beir_io.read_qrels(tmp_path / "train.tsv") == {"q": {"d": 2}}


def test_other_encoding_is_named_with_its_line(tmp_path):
    """A Latin-1 file ends in a traceback without a place."""
    (tmp_path / "queries.jsonl").write_bytes(b'{"_id": "q", "text": "x"}\n{"_id": "r", "text": "caf\xe9"}\n')
    with pytest.raises(DataContractError, match=r"queries.jsonl:2: the file is not UTF-8"):
        beir_io.read_queries(tmp_path / "queries.jsonl")


def test_compressed_file_is_found(tmp_path):
    """A downloaded set has to be unpacked by hand."""
    with gzip.open(tmp_path / "queries.jsonl.gz", "wt") as handle:
        handle.write('{"_id": "q", "text": "x"}\n')
    assert beir_io.read_queries(tmp_path / "queries.jsonl") == {"q": "x"}
    assert beir_io.read_queries(tmp_path / "queries.jsonl.gz") == {"q": "x"}


def test_damaged_compressed_file_is_refused(tmp_path):
    """A download that broke off is taken for a smaller data set."""
    whole = gzip.compress("".join(f'{{"_id": "{n}", "text": "x{n}"}}\n' for n in range(500)).encode())
    (tmp_path / "queries.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataContractError, match="gzip file is damaged"):
        beir_io.read_queries(tmp_path / "queries.jsonl")
    (tmp_path / "queries.jsonl.gz").write_bytes(b"plain")
    with pytest.raises(DataContractError, match="gzip file is damaged"):
        beir_io.read_queries(tmp_path / "queries.jsonl")


def test_both_spellings_are_refused(tmp_path):
    """The stale one of two files is read."""
    for name in ("queries.jsonl", "queries.jsonl.gz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataContractError, match="found both"):
        beir_io.read_queries(tmp_path / "queries.jsonl")


def _write(folder, splits=("train", "dev", "test")):
    beir_io.write_corpus(folder / "corpus.jsonl", {"d": Document("d", "", "text")})
    beir_io.write_queries(folder / "queries.jsonl", {split: f"query {split}" for split in splits})
    for split in splits:
        beir_io.write_qrels(folder / "qrels" / f"{split}.tsv", {split: {"d": 1}})


def test_dev_is_optional(tmp_path):
    """A set without a dev split cannot be used."""
    _write(tmp_path, ("train", "test"))
    assert list(beir_io.load_dataset(tmp_path).qrels) == ["train", "test"]


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/test.tsv"])
def test_missing_file_is_named_with_the_layout(tmp_path, name):
    """A user does not learn which file is wanted, or under which names."""
    _write(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        beir_io.load_dataset(tmp_path)
    assert all(
        part in str(caught.value) for part in (name, name.split("/")[-1] + ".gz", "queries.jsonl, qrels/train.tsv")
    )


def test_missing_folder_is_named(tmp_path):
    """A mistyped folder is told as a missing corpus file."""
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere; expected a folder with corpus.jsonl"):
        beir_io.load_dataset(tmp_path / "nowhere")


def test_split_queries():
    """Training takes queries of another split along."""
    dataset = Dataset({}, {"a": "x", "b": "y"}, {"train": {"a": {}}, "test": {"b": {}}})
    assert dataset.split_queries("test") == {"b": "y"}


@SETTINGS
@given(corpus=CORPORA, qrels=QRELS, data=st.data())
def test_hash_ignores_order(corpus, qrels, data):
    """The same data in another order count as other data, and the gate compares nothing."""
    queries = {query_id: f"text {query_id}" for query_id in qrels}
    one = Dataset(corpus, queries, {"train": qrels})

    def shuffled(mapping):
        return dict(data.draw(st.permutations(list(mapping.items()))))

    other = Dataset(
        shuffled(corpus), shuffled(queries), {"train": {q: shuffled(d) for q, d in shuffled(qrels).items()}}
    )
    assert one.hash == other.hash and re.fullmatch("[0-9a-f]{16}", one.hash)


def test_hash_sees_every_part():
    """A changed grade, or a query moved to another split, goes unnoticed."""
    document = Document("d", "T", "x")
    parts = [
        ({"d": document}, {"q": "x"}, {"train": {"q": {"d": 1}}}),
        ({"d": Document("d", "", "T. x")}, {"q": "x"}, {"train": {"q": {"d": 1}}}),
        ({"d": document}, {"q": "y"}, {"train": {"q": {"d": 1}}}),
        ({"d": document}, {"q": "x"}, {"train": {"q": {"d": 2}}}),
        ({"d": document}, {"q": "x"}, {"test": {"q": {"d": 1}}}),
    ]
    assert len({Dataset(*part).hash for part in parts}) == len(parts)
