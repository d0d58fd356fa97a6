"""The MTEB door, against mteb itself: a task in memory, whose figures are those of the project's own metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mteb")

import mteb
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SearchProtocol

from rabtriever.data.beir_io import Document
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.integrations.mteb import RabtrieverSearch
from rabtriever.search.retriever import Retriever

METADATA = TaskMetadata(
    name="ToyTools",
    description="Needs, and the tool that helps.",
    reference=None,
    dataset={"path": "in/memory", "revision": "1"},
    type="Retrieval",
    category="t2t",
    modalities=["text"],
    eval_splits=["test"],
    eval_langs=["eng-Latn"],
    main_score="ndcg_at_10",
    date=None,
    domains=None,
    task_subtypes=None,
    license=None,
    annotations_creators=None,
    dialect=None,
    sample_creation=None,
    bibtex_citation=None,
)


class ToyTools(AbsTaskRetrieval):
    """The toy corpus under other titles, so that it has to be encoded; `top_ranked` makes it a reranking task."""

    metadata = METADATA

    def __init__(self, toy: Any, top_ranked: dict[str, list[str]] | None = None) -> None:
        super().__init__()
        corpus = [{"id": one.doc_id, "title": f"Tool {one.title}", "text": one.text} for one in toy.corpus.values()]
        queries = [{"id": query_id, "text": text} for query_id, text in toy.queries.items()]
        data = {
            "corpus": Dataset.from_list([*corpus, {"id": "blank", "title": "", "text": " "}]),
            "queries": Dataset.from_list(queries),
            "relevant_docs": toy.qrels,
            "top_ranked": top_ranked,
        }
        self.dataset, self.data_loaded = {"default": {"test": data}}, True


def measured(door: Any, task: Any) -> dict[str, Any]:
    result = mteb.evaluate(door, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def test_figures_are_those_of_the_project(folder: Path, toy: Any):
    """A leaderboard shows another quality than the report does."""
    door = RabtrieverSearch(folder)
    assert isinstance(door, SearchProtocol)
    titled = {one.doc_id: Document(one.doc_id, f"Tool {one.title}", one.text) for one in toy.corpus.values()}
    run = Retriever.load(folder).reindexed(titled).rank(toy.queries, 1000)
    ours, theirs = summarise(score_queries(toy.qrels, run)), measured(door, ToyTools(toy))
    assert theirs["ndcg_at_10"] == pytest.approx(ours["nDCG@10"] / 100, abs=1e-4)
    assert 0 < theirs["ndcg_at_10"] < 1


def test_a_reranking_task_ranks_its_candidates(folder: Path, toy: Any, shared_words: Any):
    """Documents that are no candidates are ranked, or candidates by their place."""
    door = RabtrieverSearch(folder)
    door._retriever = shared_words_over(door._retriever, shared_words)
    candidates = {query_id: ["blanket", "scissors", "torch"] for query_id in toy.queries}
    door.index(ToyTools(toy).dataset["default"]["test"]["corpus"])
    queries = Dataset.from_list([{"id": "q", "text": "a cold", "instruction": "person"}])
    run = door.search(queries, top_k=2, top_ranked={"q": ["scissors", "blank", "blanket", "torch"]})
    assert run == {"q": {"blanket": 3.0, "scissors": 0.0}}
    assert set(measured(door, ToyTools(toy, candidates))) > {"ndcg_at_10"}


def shared_words_over(retriever: Any, scorer: Any) -> Any:
    retriever.score = scorer.score
    return retriever


def test_results_are_filed_under_the_retriever(folder: Path, retriever: Any):
    """MTEB answers from its cache with the figures of another retriever."""
    meta = RabtrieverSearch(folder, name="me/mine").mteb_model_meta
    assert (meta.name, meta.revision) == ("me/mine", Retriever.load(folder).manifest.hash[:12])
    retriever.manifest = None
    with pytest.raises(ValueError, match="save it to a folder"):
        RabtrieverSearch(retriever)


def test_conversations_are_refused(folder: Path, toy: Any):
    """A list of turns is searched for as its Python text."""
    door = RabtrieverSearch(folder)
    with pytest.raises(RuntimeError, match="index first"):
        door.search(Dataset.from_list([]), top_k=1)
    door.index(ToyTools(toy).dataset["default"]["test"]["corpus"])
    with pytest.raises(ValueError, match="conversation"):
        door.search(Dataset.from_list([{"id": "q", "text": ["one", "two"]}]), top_k=1)
