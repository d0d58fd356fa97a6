"""Training judgements by row number: queries, their positives, and the documents that may serve as negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Corpus, Qrels, Queries


@dataclass(frozen=True)
class Judgements:
    """The judgements of one split over numbered queries and documents.

    Negatives are drawn from the documents that are positive for any query, and from those judged wrong for the query
    itself. Any other document may be new to the corpus and right for many queries. Training on it as a negative would
    teach that it is never right.

    Attributes:
        query_ids: ids of the queries with a positive, sorted; row numbers below refer to it.
        doc_ids: ids of the corpus in file order.
        grades: for each query row, document row -> grade, every judgement with grade >= 1.
        positive_for_any: sorted document rows that are positive for some query.
        rejected: for each query row, the document rows that were judged with grade 0.
    """

    query_ids: list[str]
    doc_ids: list[str]
    grades: list[dict[int, int]]
    positive_for_any: np.ndarray
    rejected: list[frozenset[int]]

    @classmethod
    def build(cls, corpus: Corpus, qrels: Qrels) -> Judgements:
        """Numbers the corpus and the queries of one split's qrels; queries without a positive are left out."""
        doc_ids = list(corpus)
        row_of = {doc_id: row for row, doc_id in enumerate(doc_ids)}
        query_ids = sorted(q for q, judgements in qrels.items() if any(g > 0 for g in judgements.values()))
        grades = [{row_of[d]: g for d, g in sorted(qrels[q].items()) if g > 0} for q in query_ids]
        judged = np.array(sorted({row for known in grades for row in known}), dtype=np.int64)
        rejected = [frozenset(row_of[d] for d, g in qrels[q].items() if g == 0) for q in query_ids]
        return cls(query_ids, doc_ids, grades, judged, rejected)

    def texts(self, queries: Queries) -> list[str]:
        """Texts of the query rows, in row order."""
        return [queries[query_id] for query_id in self.query_ids]

    def positive(self, query: int, rng: np.random.Generator) -> int:
        """One positive document row of a query, drawn in proportion to its grade."""
        rows = list(self.grades[query])
        weights = np.array([self.grades[query][row] for row in rows], dtype=np.float64)
        return int(rng.choice(rows, p=weights / weights.sum()))

    def sample_queries(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` query rows without repetition (all of them when there are fewer)."""
        return rng.choice(len(self.query_ids), size=min(count, len(self.query_ids)), replace=False)

    @property
    def unjudged(self) -> np.ndarray:
        """Document rows that are positive for no training query, sorted."""
        return np.setdiff1d(np.arange(len(self.doc_ids)), self.positive_for_any)

    def eligible(self, query: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(len(rows),) bool: the documents that may be a query's positives or negatives; row -1 is none."""
        return np.isin(rows, self.positive_for_any) | np.isin(rows, list(self.rejected[query]))

    def hardest(self, scores: np.ndarray, first_row: int, depth: int, eligible: bool) -> np.ndarray:
        """The best-scored documents of each query that are wrong for it, or that nobody has judged for it.

        Args:
            scores: (B, N) similarity of consecutive query rows to all documents.
            first_row: query row of `scores[0]`.
            depth: how many to keep per query.
            eligible: True for negatives (documents positive for some other query, and those judged wrong for this
                one); False for documents that are positive for no query.

        Returns:
            (B, depth) rows, best-scored first; where fewer exist, -1 fills the end.
        """
        pool = self.positive_for_any if eligible else self.unjudged
        found = np.full((len(scores), depth), -1, dtype=np.int64)
        for offset in range(len(scores)):
            rejected = self.rejected[first_row + offset]
            told = self.grades[first_row + offset].keys() | rejected
            order = top_rows(scores[offset : offset + 1, pool], depth + len(told))[0]
            kept = [int(row) for row in pool[order] if row not in told]
            if eligible and rejected:
                kept = sorted([*kept, *rejected], key=lambda row, of=scores[offset]: (-of[row], row))
            found[offset, : min(depth, len(kept))] = kept[:depth]
        return found


def draw(pool: Sequence[int] | np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Up to `count` different entries of `pool`; entries below zero are fillers and never drawn."""
    usable = [int(entry) for entry in pool if entry >= 0]
    if len(usable) <= count:
        return usable
    return [int(entry) for entry in rng.choice(usable, size=count, replace=False)]
