"""BEIR's rule of identical ids: a document with the id of a query is ignored for that query.

In sets such as ArguAna and Quora the queries are documents of the corpus. A query finds itself first, which says
nothing about a system and takes the place of an answer. A document that is judged relevant for the query of its id is
not ignored: the owner of the data says that it is an answer. So ids that are equal by chance do no harm, and the rule
needs no setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rabtriever.data.beir_io import Dataset, Run


def is_ignored(query_id: str, doc_id: str, grades: Mapping[str, int]) -> bool:
    """Whether the rule leaves a document out for a query, whose grades by document are given."""
    return doc_id == query_id and grades.get(doc_id, 0) < 1


def with_own_document(dataset: Dataset, query_ids: Iterable[str]) -> set[str]:
    """Those of some queries for which a document of the corpus is ignored."""
    judged = {query_id: grades for qrels in dataset.qrels.values() for query_id, grades in qrels.items()}
    return {one for one in query_ids if one in dataset.corpus and is_ignored(one, one, judged.get(one, {}))}


def ranked(rank: Callable[[int], Run], dataset: Dataset, query_ids: Iterable[str], depth: int) -> Run:
    """The run of a system without the documents that are ignored, `depth` documents of each query.

    Args:
        rank: Gives the run with a number of documents of each query. It is asked for one more where any is ignored.
        dataset: The documents and the judgements.
        query_ids: The queries of the run.
        depth: Documents kept of each query.
    """
    own = with_own_document(dataset, query_ids)
    if not own:
        return rank(depth)
    return {
        query_id: _best(
            {doc_id: score for doc_id, score in scores.items() if doc_id != query_id or doc_id not in own}, depth
        )
        for query_id, scores in rank(depth + 1).items()
    }


def _best(scores: Mapping[str, float], depth: int) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:depth])
