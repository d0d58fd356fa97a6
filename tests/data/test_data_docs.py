"""The static pages on the data contract."""

import re

from rabtriever.data.beir_io import Dataset, Document
from rabtriever.data.contract import CONTRACT
from rabtriever.data.data_docs import build_data_docs

BROKEN = Dataset(
    corpus={"d": Document("d", "", "a text")},
    queries={"a": "first need", "e": "second need"},
    qrels={"train": {"a": {"d": 1}}, "test": {"e": {"d99": 1}}},
)


def test_data_docs_need_no_network(tmp_path):
    """The pages wait for style sheets and scripts of other hosts, or show nothing without them."""
    start = build_data_docs(BROKEN, tmp_path / "docs")
    pages = list((tmp_path / "docs").rglob("*.html"))
    assert len(pages) > len({one.table for one in CONTRACT})
    fetched = re.compile(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']?https?://")
    assert not any(fetched.search(page.read_text()) for page in pages)
    assert "every judged document is in corpus.jsonl</a></td><td>broken by 1</td>" in start.read_text()
    links = re.findall(r"href='([^']+)'", start.read_text())
    assert len(links) == len(CONTRACT) and all((tmp_path / "docs" / link).is_file() for link in links)
