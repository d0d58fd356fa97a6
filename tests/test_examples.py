"""Example queries of pages, help texts and health checks: one list, and sensible answers."""

from __future__ import annotations

import inspect
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote_plus

import pytest

from rabtriever.core.artifacts import MANIFEST_NAME
from rabtriever.data.beir_io import read_corpus, read_qrels, read_queries
from rabtriever.ops.examples import EXAMPLE, EXAMPLE_DOCUMENT, EXAMPLES
from rabtriever.search.retriever import Hit, Retriever

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "src").rglob("*.py"))]
ANSWERS = json.loads((ROOT / "docs/evaluation/examples.json").read_text(encoding="utf-8"))
TEXT = r"""(["'])((?:(?!\1).)*\w(?:(?!\1).)*)\1"""  # quoted, with a letter: "..." stands for any query
ASKED = re.compile(r"(?:rabtriever (?:search|explain) |(?<!\bre)\.(?:search|explain)\(\[?|\"query\":\s*\[?\s*)" + TEXT)
LISTED = re.compile(r"\.search\(\[([^\]]*)\]")
IN_ADDRESS = re.compile(r"[?&]q(?:uery)?=([^&\s\"'`)]+)")
EXPLAINED = re.compile(r"(?:\.explain\(|rabtriever explain )" + TEXT + r",?\s*[\"']?(\w+)")


def shown_queries(page: str) -> Iterator[str]:
    """The query texts that a page or source file asks a retriever for."""
    yield from (text for _, text in ASKED.findall(page))
    yield from (text for listed in LISTED.findall(page) for _, text in re.findall(TEXT, listed))
    yield from map(unquote_plus, IN_ADDRESS.findall(page))


@pytest.fixture(scope="module")
def query_ids() -> dict[str, str]:
    """Ids of the shipped queries by text."""
    return {text: query_id for query_id, text in read_queries(ROOT / "data/household/queries.jsonl").items()}


@pytest.fixture(scope="module")
def qrels() -> dict[str, dict[str, int]]:
    """The shipped test judgements."""
    return read_qrels(ROOT / "data/household/qrels/test.tsv")


@pytest.mark.parametrize(
    "page",
    [
        'rabtriever search "The sink." -k 5',
        "bin/rabtriever search 'The sink.'",
        "rabtriever explain 'The sink.' d012",
        'hits = retriever.search("The sink.", k=5)',
        'retriever.search(["The sink."])',
        'retriever.explain("The sink.", "d012")',
        '-d \'{"dataframe_records": [{"query": "The sink."}]}\'',
        'pd.DataFrame({"query": ["The sink."]})',
        "curl 'http://127.0.0.1:8000/search?query=The+sink.&k=3'",
    ],
)
def test_every_form_of_a_query_is_seen(page):
    """A page shows a query in a form that the test below overlooks."""
    assert set(shown_queries(page)) == {"The sink."}


def test_a_pattern_is_not_taken_for_a_query():
    """Code that searches a text, or a placeholder, has to be written around the test."""
    assert not list(shown_queries('re.search("a pattern", line); rabtriever search QUERY; retriever.search("...")'))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_and_help_show_examples_of_the_list_only(page):
    """A reader types the query of a page and gets nonsense."""
    unknown = set(shown_queries(page.read_text(encoding="utf-8"))) - set(EXAMPLES)
    assert not unknown, f"{page.name} asks {unknown}; use a query of src/rabtriever/ops/examples.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_explained_documents_are_relevant(page, query_ids, qrels):
    """A page explains the score of a document that does not exist, or that has nothing to do with the query."""
    for _, query, doc_id in EXPLAINED.findall(page.read_text(encoding="utf-8")):
        assert qrels[query_ids[query]].get(doc_id, 0) > 0, (query, doc_id)


def test_health_checks_ask_an_example():
    """The gate and a rollback ask a version something that no document answers."""
    from rabtriever.ops import registry

    assert inspect.signature(registry.check_answers).parameters["query"].default in EXAMPLES


def test_examples_have_a_relevant_first_document(query_ids, qrels):
    """An example is answered by an unfitting document, or its committed answer is not what the data say."""
    corpus = read_corpus(ROOT / "data/household/corpus.jsonl")
    assert [answer["query"] for answer in ANSWERS["examples"]] == list(EXAMPLES)
    for answer in ANSWERS["examples"]:
        assert query_ids[answer["query"]] == answer["query_id"]
        grades = qrels[answer["query_id"]]
        assert answer["hits"][0]["grade"] > 0, answer
        for hit in answer["hits"]:
            document = corpus[hit["doc_id"]]
            assert (hit["title"], hit["text"]) == (document.title, document.text)
            assert hit["grade"] == grades.get(hit["doc_id"], 0)
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == sorted(scores, reverse=True)
    assert (
        ANSWERS["examples"][0]["query"] == EXAMPLE and ANSWERS["examples"][0]["hits"][0]["doc_id"] == EXAMPLE_DOCUMENT
    )


def test_answers_and_table_are_of_one_retriever():
    """Pages show the table of one training run and the rankings of another."""
    table = json.loads((ROOT / "docs/evaluation/household.json").read_text(encoding="utf-8"))
    assert ANSWERS["retriever"] == table["retriever"] and ANSWERS["dataset"] == table["dataset"]


class Stub:
    """A retriever that answers every query with the same documents."""

    manifest = SimpleNamespace(hash="0" * 64)

    def __init__(self, *doc_ids: str) -> None:
        self.hits = [Hit(doc_id, 1.2345 - row, "a title", "a text") for row, doc_id in enumerate(doc_ids)]

    def search(self, queries: list[str], k: int) -> list[list[Hit]]:
        return [self.hits[:k] for _ in queries]


def test_answers_are_taken_with_their_grades(monkeypatch, qrels):
    """`make tables` commits answers without saying which are right, or in a precision that no two machines share."""
    monkeypatch.setattr("rabtriever.ops.examples.EXAMPLES", (EXAMPLE,))
    monkeypatch.setattr(Retriever, "load", lambda folder: Stub(EXAMPLE_DOCUMENT, "d001"))
    taken = runpy.run_path(str(ROOT / "docs/update_tables.py"))["examples"](ROOT / "models/retriever")
    (answer,) = taken["examples"]
    assert taken["retriever"] == "0" * 64 and answer["query"] == EXAMPLE
    assert answer["hits"][0] == {
        "doc_id": EXAMPLE_DOCUMENT,
        "score": 1.23,
        "title": "a title",
        "text": "a text",
        "grade": qrels[answer["query_id"]][EXAMPLE_DOCUMENT],
    }
    assert answer["hits"][1]["grade"] == 0


def test_an_unfitting_answer_is_not_taken(monkeypatch):
    """`make tables` fills the pages with the nonsense of a badly trained retriever."""
    monkeypatch.setattr(Retriever, "load", lambda folder: Stub("d001", EXAMPLE_DOCUMENT))
    with pytest.raises(ValueError, match="d001 .* was not judged relevant"):
        runpy.run_path(str(ROOT / "docs/update_tables.py"))["examples"](ROOT / "models/retriever")


def test_the_trained_retriever_answers_the_examples(query_ids, qrels):
    """The pipeline's own result answers the examples of its documentation with unfitting documents."""
    folder = ROOT / "models/retriever"
    if not (folder / MANIFEST_NAME).is_file():
        pytest.skip("models/retriever is not trained here; make run trains it")
    if read_corpus(folder / "corpus.jsonl") != read_corpus(ROOT / "data/household/corpus.jsonl"):
        pytest.skip("models/retriever is of another data set than data/household")
    for query, hits in zip(EXAMPLES, Retriever.load(folder).search(list(EXAMPLES), k=1), strict=True):
        assert qrels[query_ids[query]].get(hits[0].doc_id, 0) > 0, (query, hits[0])
