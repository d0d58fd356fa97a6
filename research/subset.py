"""A smaller data set for a study that has to end: fewer queries, and fewer documents, the judged ones first."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rabtriever.data.beir_io import Dataset
from rabtriever.data.preparation import sampled


def subset(dataset: Dataset, limits: Mapping[str, int], documents: int) -> Dataset:
    """The data set with fewer queries in the splits named, and a corpus cut to a size.

    The corpus keeps every document that is judged for a remaining test or dev query, then those judged for training
    queries, then others, each in the order of a hash of their ids. Judgements of documents that go, go with them, and
    so do training queries that are left without a relevant document. A smaller corpus is an easier one: say its size
    beside a figure.

    Args:
        dataset: with any splits.
        limits: most queries by split; 0 keeps all.
        documents: most documents, more only where test and dev judge more; 0 keeps all.
    """
    fewer = sampled(dataset, dict(limits))
    if not documents or len(fewer.corpus) <= documents:
        return fewer
    needed = {
        doc for split, qrels in fewer.qrels.items() if split != "train" for judged in qrels.values() for doc in judged
    }
    trained = {doc for judged in fewer.qrels["train"].values() for doc in judged}
    order = sorted(fewer.corpus, key=lambda doc: (doc not in needed, doc not in trained, _hash(doc)))
    kept = set(order[: max(documents, len(needed & set(fewer.corpus)))])
    qrels = {
        split: {
            query_id: {doc: grade for doc, grade in judged.items() if doc in kept} for query_id, judged in part.items()
        }
        for split, part in fewer.qrels.items()
    }
    qrels["train"] = {query_id: judged for query_id, judged in qrels["train"].items() if any(judged.values())}
    corpus = {doc: document for doc, document in fewer.corpus.items() if doc in kept}
    return sampled(Dataset(corpus, fewer.queries, qrels), {})


def _hash(doc_id: str) -> bytes:
    return hashlib.sha256(doc_id.encode()).digest()
