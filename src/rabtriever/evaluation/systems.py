"""Every system of the evaluation table, ranked on the same queries and measured the same way.

`bm25` ranks lexically, `biencoder` by the cosine of texts encoded alone, `student` is the retriever folder as it is
served, `teacher` reads every document for every query, or a stated pool of documents where the corpus is large.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rabtriever.core.progress import at_work
from rabtriever.core.settings import bounded
from rabtriever.core.vectors import top_rows, unit
from rabtriever.data.beir_io import Dataset, Qrels, Queries, Run
from rabtriever.data.identical_ids import ranked
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.evaluation.latency import latencies
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.models.reranker import Reranker
from rabtriever.search.bm25 import Bm25
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import inner_products

DEPTH = 100


@dataclass(frozen=True)
class EvaluateParams:
    """Section `evaluate` of params.yaml.

    Attributes:
        teacher_all_up_to: largest corpus on which the teacher scores every document of every query.
        teacher_pool: beyond that, it scores this many documents from the top of BM25, bi-encoder and student each.
        batch_size: pairs of a forward pass of the teacher.
        timed_queries: queries asked one at a time to measure the latency of the systems.
        samples: queries shown with their first documents.
    """

    teacher_all_up_to: int = bounded(ge=0)
    teacher_pool: int = bounded(ge=1)
    batch_size: int = bounded(ge=1)
    timed_queries: int = bounded(ge=1)
    samples: int = bounded(ge=0)


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        run: the ranking of every query.
        search: finds the first documents of one query, as it is served; its latency is measured. None where a query
            is never answered alone.
        bytes_per_document: what the system stores of a document.
        ms_per_query: the latency where there is no `search`; None where none was measured.
    """

    run: Run
    search: Callable[[str], object] | None
    bytes_per_document: float
    ms_per_query: float | None = None


def bm25_system(dataset: Dataset, queries: Queries) -> System:
    """BM25 over title and text."""
    index = Bm25([document.contents for document in dataset.corpus.values()])
    texts, stored = list(queries.values()), index.bytes / len(dataset.corpus)
    run = ranked(lambda depth: _run(dataset, queries, *index.rank(texts, depth)), dataset, queries, DEPTH)
    return System(run, lambda text: index.rank([text], 10), stored)


def biencoder_system(dataset: Dataset, queries: Queries, backbone: Backbone, prompt: Prompt, batch_size: int) -> System:
    """Inner product of unit states, all documents."""
    contents = [document.contents for document in dataset.corpus.values()]
    documents = unit(backbone.encode(prompt.document.ids(contents), batch_size, "evaluate: biencoder, documents"))
    products = inner_products(documents)

    def scores(texts: Sequence[str], label: str | None = None) -> np.ndarray:
        return products(unit(backbone.encode(prompt.query.ids(texts), batch_size, label)))

    found = scores(list(queries.values()), "evaluate: biencoder, queries")
    return scoring_system(dataset, queries, scores, found, 4.0 * documents.shape[1])


def scoring_system(
    dataset: Dataset,
    queries: Queries,
    score: Callable[[Sequence[str]], np.ndarray],
    found: np.ndarray,
    bytes_per_document: float,
) -> System:
    """The row of a system that scores all documents of a query at once.

    Args:
        dataset: names the documents.
        queries: what was ranked.
        score: query texts to (Q, N) scores; also what answers one query.
        found: (Q, N) scores of all queries.
        bytes_per_document: what the system stores of a document.
    """

    def rank(depth: int) -> Run:
        rows = top_rows(found, depth)
        return _run(dataset, queries, rows, np.take_along_axis(found, rows, axis=1))

    run = ranked(rank, dataset, queries, DEPTH)
    return System(run, lambda text: top_rows(score([text]), 10), bytes_per_document)


def student_system(dataset: Dataset, queries: Queries, retriever: Retriever) -> System:
    """The retriever folder, searched as it is served."""
    with at_work("evaluate: student, queries"):
        run = ranked(lambda depth: retriever.rank(queries, depth), dataset, queries, DEPTH)
    return System(run, lambda text: retriever.search([text], 10), float(retriever.bytes_per_document))


def teacher_system(
    dataset: Dataset,
    queries: Queries,
    reranker: Reranker,
    embeddings: np.ndarray,
    others: Sequence[Run],
    params: EvaluateParams,
) -> tuple[System, str]:
    """The teacher on all documents, or on the pool of the other systems' best; and which of the two, in words.

    Its latency is the time of the whole pass divided by the queries: each document was read once for all of them.
    """
    doc_ids = list(dataset.corpus)
    row_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
    if len(doc_ids) <= params.teacher_all_up_to:
        pools = [list(range(len(doc_ids)))] * len(queries)
        scope = "all documents"
    else:
        pools = [_pool(query_id, others, row_of, params.teacher_pool) for query_id in queries]
        scope = f"the union of the first {params.teacher_pool} documents of BM25, bi-encoder and student"
    pairs = np.array([(query, row) for query, pool in enumerate(pools) for row in pool], dtype=np.int64)
    query_ids = reranker.prompt.query.ids(list(queries.values()))
    contents = [document.contents for document in dataset.corpus.values()]
    scores = np.empty(len(pairs), dtype=np.float32)
    start = time.perf_counter()
    document_ids = reranker.prompt.document.ids(contents)
    label = "evaluate: teacher, pairs"
    for part in reranker.score_pairs(query_ids, document_ids, pairs, params.batch_size, label, embeddings):
        scores[part.pairs] = part.scores
    seconds = time.perf_counter() - start
    starts = np.cumsum([0, *(len(pool) for pool in pools)])

    def rank(depth: int) -> Run:
        run: Run = {}
        for query, query_id in enumerate(queries):
            part = slice(starts[query], starts[query + 1])
            best = top_rows(scores[None, part], depth)[0]
            run[query_id] = {doc_ids[pools[query][place]]: float(scores[part][place]) for place in best}
        return run

    run = ranked(rank, dataset, queries, DEPTH)
    stored = sum(len(text.encode()) for text in contents) / len(contents)
    return System(run, None, stored, 1000 * seconds / len(queries)), scope


def table(
    qrels: Qrels, systems: Mapping[str, System], timed: Sequence[str]
) -> tuple[dict[str, Any], dict[str, dict[str, dict[str, float]]]]:
    """The rows of the table (per cent, milliseconds, bytes), and every metric of every query (0 to 1) by system.

    Args:
        qrels: judgements of the queries that were ranked.
        systems: by name.
        timed: texts of the queries whose latency is measured; at least one.
    """
    searches = {name: system.search for name, system in systems.items() if system.search is not None}
    spent = latencies(searches, timed, "evaluate: latency")
    rows, per_query = {}, {}
    for name, system in systems.items():
        per_query[name] = score_queries(qrels, system.run)
        median, p95 = spent.get(name, (system.ms_per_query, None))
        rows[name] = {
            **{metric: round(value, 2) for metric, value in summarise(per_query[name]).items()},
            "ms_per_query": None if median is None else round(median, 3),
            "ms_per_query_p95": None if p95 is None else round(p95, 3),
            "bytes_per_document": round(system.bytes_per_document, 1),
        }
    return rows, per_query


def sample_rankings(dataset: Dataset, queries: Queries, retriever: Retriever, count: int) -> list[dict[str, Any]]:
    """The first five documents of `count` queries, spread evenly, with the grades the judgements give them."""
    names = list(queries)
    chosen = [names[number * len(names) // count] for number in range(min(count, len(names)))]
    found = retriever.search([queries[query_id] for query_id in chosen], 5)
    judged = dataset.qrels["test"]
    return [
        {
            "query_id": query_id,
            "query": queries[query_id],
            "hits": [
                {
                    "doc_id": hit.doc_id,
                    "score": round(hit.score, 4),
                    "title": hit.title,
                    "text": hit.text,
                    "grade": judged[query_id].get(hit.doc_id, 0),
                }
                for hit in hits
            ],
        }
        for query_id, hits in zip(chosen, found, strict=True)
    ]


def _pool(query_id: str, others: Sequence[Run], row_of: Mapping[str, int], size: int) -> list[int]:
    pool: dict[int, None] = {}
    for run in others:
        ranked = sorted(run[query_id].items(), key=lambda item: (-item[1], item[0]))[:size]
        pool.update(dict.fromkeys(row_of[doc_id] for doc_id, _ in ranked))
    return list(pool)


def _run(dataset: Dataset, queries: Queries, rows: np.ndarray, scores: np.ndarray) -> Run:
    doc_ids = list(dataset.corpus)
    return {
        query_id: {doc_ids[row]: float(score) for row, score in zip(found, values, strict=True)}
        for query_id, found, values in zip(queries, rows, scores, strict=True)
    }
