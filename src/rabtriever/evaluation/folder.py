"""The metrics of a retriever on a folder of BEIR layout."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from rabtriever.data.beir_io import DataContractError, Dataset, read_corpus, read_qrels, read_queries
from rabtriever.data.identical_ids import ranked, with_own_document
from rabtriever.data.look_alikes import LookAlikes
from rabtriever.data.metrics import score_queries, summarise

if TYPE_CHECKING:
    from rabtriever.search.retriever import Retriever

DEPTH = 100  # the largest cut-off of the metrics


def evaluate(retriever: Retriever, folder: str | Path, split: str = "test") -> dict[str, float]:
    """The mean metrics of a retriever over the judged queries of a split.

    The retriever searches its own documents where the folder has the same. Else it encodes those of the folder first,
    which takes as long as reading each of them once.

    Args:
        retriever: what is measured.
        folder: BEIR layout: corpus.jsonl, queries.jsonl and qrels/<split>.tsv.
        split: name of the file of judgements.

    Returns:
        Each metric in per cent, and the counts `queries` (those with a relevant document) and `documents`. Where
        queries have the id of a document, `own_documents_ignored` counts these documents, which are left out.

    Raises:
        FileNotFoundError: a file is missing.
        DataContractError: a file is broken, a judged query has no text, or no query has a relevant document.
        ModuleNotFoundError: ir_measures is not installed.
    """
    check_installed()
    folder = Path(folder)
    qrels, texts = read_qrels(folder / "qrels" / f"{split}.tsv"), read_queries(folder / "queries.jsonl")
    if unknown := [query_id for query_id in qrels if query_id not in texts]:
        alike = LookAlikes(texts).of(unknown[0])
        raise DataContractError(
            f"{folder}: query {unknown[0]!r} of qrels/{split}.tsv is not in queries.jsonl; "
            + (f"there is {alike}" if alike else "add it, or remove the judgements of such queries")
            + f" ({len(unknown)})"
        )
    corpus = read_corpus(folder / "corpus.jsonl")
    here = {document.doc_id: document for document in retriever.documents}
    searched = retriever if here == corpus else retriever.reindexed(corpus)
    asked = Dataset(corpus, {query_id: texts[query_id] for query_id in qrels}, {split: qrels})
    run = ranked(lambda depth: searched.rank(asked.queries, depth), asked, qrels, DEPTH)
    per_query, own = score_queries(qrels, run), with_own_document(asked, qrels)
    if not per_query:
        raise DataContractError(f"{folder}: no query of qrels/{split}.tsv has a relevant document (grade 1 or more)")
    counts = {"queries": len(per_query), "documents": len(corpus)}
    return {**summarise(per_query), **counts, **({"own_documents_ignored": len(own)} if own else {})}


def check_installed() -> None:
    """Makes sure that the library that computes the metrics is there, before anything is searched.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if importlib.util.find_spec("ir_measures") is None:
        raise ModuleNotFoundError(
            "metrics need ir_measures, which is not installed; install rabtriever[train]", name="ir_measures"
        )
