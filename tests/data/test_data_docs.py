"""The static pages on the data contract."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.contract import CONTRACT
from rabtriever.data.data_docs import build_data_docs

BROKEN = Dataset(
    corpus={"d": Document("d", "", "a text")},
    queries={"a": "first need", "e": "second need"},
    qrels={"train": {"a": {"d": 1}}, "test": {"e": {"d99": 1}}},
)


SCRIPT = "<script>document.title='X'</script>"
IMAGE = "<img/src=x/onerror=alert(1)>"  # an id has no white space
HOSTILE = Dataset(
    corpus={"d": Document("d", "", "a text")},
    queries={"a": SCRIPT, "e": SCRIPT.title()},
    qrels={"train": {"a": {"d": 1}}, "test": {"e": {IMAGE: 1}}},
)


class Elements(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> list[Elements]:
    """The pages on data whose texts and ids are HTML."""
    folder = tmp_path_factory.mktemp("hostile") / "docs"
    build_data_docs(HOSTILE, folder)
    return [Elements(page) for page in folder.rglob("*.html")]


def test_texts_of_data_are_shown_and_not_run(hostile):
    """S08: a query runs as a script when the page is opened. Neighbour: an id makes an element with a handler."""
    elements = [element for page in hostile for element in page.found]
    assert "script" not in {tag for tag, _ in elements}
    assert not [attributes for _, attributes in elements if "onerror" in attributes]
    shown = "".join(page.text for page in hostile)
    assert SCRIPT in shown and IMAGE in shown


def test_a_browser_is_told_to_run_nothing(hostile):
    """S08: a place where a value is not escaped would be enough to run it, or to ask another host."""
    for page in hostile:
        policies = [attributes for tag, attributes in page.found if tag == "meta" and "http-equiv" in attributes]
        assert [one["http-equiv"] for one in policies] == ["Content-Security-Policy"]
        rules = dict(rule.strip().split(" ", 1) for rule in policies[0]["content"].split(";"))
        assert rules["default-src"] == "'none'" and "script-src" not in rules
        assert not re.search("http", policies[0]["content"])


def test_data_docs_need_no_network(tmp_path):
    """S08: the pages wait for style sheets, scripts or images of other hosts, or show nothing without them."""
    start = build_data_docs(BROKEN, tmp_path / "docs")
    pages = list((tmp_path / "docs").rglob("*.html"))
    assert len(pages) > len({one.table for one in CONTRACT})
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?(?:https?:)?//|url\([\"' ]*(?:https?:)?//")
    assert not [file for file in (*pages, *start.parent.rglob("*.css")) if fetched.search(file.read_text())]
    assert "every judged document is in corpus.jsonl</a></td><td>broken by 1</td>" in start.read_text()
    links = re.findall(r"href='([^']+)'", start.read_text())
    assert len(links) == len(CONTRACT) and all((tmp_path / "docs" / link).is_file() for link in links)
