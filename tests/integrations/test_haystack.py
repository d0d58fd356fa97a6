"""The Haystack door, against haystack-ai itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline

from rabtriever.integrations.haystack import RabtrieverRanker, RabtrieverRetriever
from rabtriever.search.calibration import UNCALIBRATED
from tests.integrations.conftest import BEST, CHANCES, QUERY, TEXTS


def test_documents_are_the_hits(retriever: Any):
    """A pipeline answers from other documents than the retriever found."""
    found = RabtrieverRetriever(retriever, top_k=3).run("the power is out")["documents"]
    hits = retriever.search("the power is out", 3)
    assert [(one.id, one.meta["raw_score"]) for one in found] == [(hit.doc_id, hit.score) for hit in hits]
    assert [one.score for one in found] == [UNCALIBRATED.probability(hit.score) for hit in hits]
    assert found[0].content == f"{hits[0].title}. {hits[0].text}" and found[0].meta["title"] == hits[0].title


def test_a_saved_pipeline_comes_back(folder: Path, retriever: Any):
    """A pipeline that was written to a file loses its settings, or cannot be read."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", RabtrieverRetriever(folder, top_k=2))
    pipeline.add_component("ranker", RabtrieverRanker(str(folder), top_k=1))
    pipeline.connect("retriever.documents", "ranker.documents")
    read = Pipeline.loads(pipeline.dumps(), allowed_modules=["rabtriever.integrations.*"])
    assert read.get_component("retriever").top_k == 2 and read.get_component("ranker").top_k == 1
    found = read.get_component("retriever").run("I am freezing")["documents"]
    assert [one.id for one in found] == [hit.doc_id for hit in retriever.search("I am freezing", 2)]


def test_a_pipeline_runs(retriever: Any, shared_words: Any):
    """Components that do not fit together are found by the user."""
    pipeline = Pipeline()
    pipeline.add_component("retriever", RabtrieverRetriever(retriever, top_k=8))
    pipeline.add_component("ranker", RabtrieverRanker(shared_words))
    pipeline.connect("retriever.documents", "ranker.documents")
    query = "cold person"
    answer = pipeline.run({"retriever": {"query": query}, "ranker": {"query": query, "top_k": 1}})
    assert [(one.id, one.score) for one in answer["ranker"]["documents"]] == [
        ("blanket", shared_words.calibration.probability(2.0))
    ]


def test_reranking_keeps_the_best(shared_words: Any):
    """The best document is lost, or the caller's own one changed."""
    documents = [Document(content=text, score=9.0) for text in TEXTS]
    found = RabtrieverRanker(shared_words, top_k=3).run(QUERY, documents)["documents"]
    assert [(one.content, one.score) for one in found] == list(
        zip([TEXTS[place] for place in BEST[:3]], CHANCES, strict=True)
    )
    assert documents[3].score == 9.0
    assert len(RabtrieverRanker(shared_words, top_k=None).run(QUERY, documents)["documents"]) == 4


def test_wrong_settings(retriever: Any, shared_words: Any):
    """A pipeline is saved without its retriever, or ranks what has no text."""
    with pytest.raises(ValueError, match="Retriever in memory"):
        RabtrieverRetriever(retriever).to_dict()
    with pytest.raises(ValueError, match="'a' has no text"):
        RabtrieverRanker(shared_words).run(QUERY, [Document(id="a")])
    for wrong in (lambda: RabtrieverRetriever(top_k=0), lambda: RabtrieverRanker(shared_words).run(QUERY, [], -1)):
        with pytest.raises(ValueError, match="top_k is"):
            wrong()


def test_no_usage_figures_are_sent():
    """Haystack reports what runs to its makers, unless told otherwise before it is imported."""
    asked = "import rabtriever.integrations.haystack; from haystack.telemetry import _telemetry as t"
    unset = {name: value for name, value in os.environ.items() if name != "HAYSTACK_TELEMETRY_ENABLED"}
    done = subprocess.run(
        [sys.executable, "-c", f"{asked}; print(t.telemetry)"], env=unset, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"
