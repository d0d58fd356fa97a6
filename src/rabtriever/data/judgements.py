"""Training judgements by row number: queries, their positives, and the documents that may serve as negatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rabtriever.core.vectors import top_rows
from rabtriever.data.beir_io import Corpus, Qrels, Queries
from rabtriever.data.identical_ids import is_ignored
from rabtriever.data.statistics import normalised


@dataclass(frozen=True)
class Judgements:
    """The judgements of one split over numbered queries and documents.

    Negatives are drawn from the documents that are positive for any query, and from those judged wrong for the query
    itself. Any other document may be new to the corpus and right for many queries. Training on it as a negative would
    teach that it is never right.

    Texts count, not ids. Queries of equal text are one query with the judgements of all; the higher grade of a document
    counts. What is judged of a document is judged of all documents of equal text. Texts are equal where their
    `statistics.normalised` forms are.

    Attributes:
        query_ids: ids of the queries with a positive, sorted; row numbers below refer to it. Of queries of equal text
            it has the first id.
        doc_ids: ids of the corpus in file order.
        grades: for each query row, document row -> grade, of all documents whose text has a grade >= 1.
        positive_for_any: sorted document rows whose text is positive for some query.
        rejected: for each query row, the document rows that were judged with grade 0.
        ignored: for each query row, the document rows that are neither its positives nor its negatives, because they
            are the query itself (see `identical_ids`).
        first_copy: (N,) for each document row, the first row of the same text.
    """

    query_ids: list[str]
    doc_ids: list[str]
    grades: list[dict[int, int]]
    positive_for_any: np.ndarray
    rejected: list[frozenset[int]]
    ignored: list[frozenset[int]]
    first_copy: np.ndarray

    @classmethod
    def build(cls, corpus: Corpus, qrels: Qrels, queries: Queries) -> Judgements:
        """Numbers the corpus and the queries of one split's qrels; queries without a positive are left out.

        Args:
            corpus: The documents.
            qrels: The judgements of the split.
            queries: The texts of its queries.
        """
        first_copy = _first_copies(corpus)
        known = _Documents({doc_id: row for row, doc_id in enumerate(corpus)}, first_copy)
        found = [(ids[0], *known.judged(ids, qrels)) for ids in _united(qrels, queries)]
        asked = sorted((one for one in found if one[1]), key=lambda one: one[0])
        grades, rejected, ignored = ([one[part] for one in asked] for part in (1, 2, 3))
        positive = np.array(sorted(known.copies(row for judged in grades for row in judged)), dtype=np.int64)
        return cls([one[0] for one in asked], list(corpus), grades, positive, rejected, ignored, first_copy)

    def texts(self, queries: Queries) -> list[str]:
        """Texts of the query rows, in row order."""
        return [queries[query_id] for query_id in self.query_ids]

    def positive(self, query: int, rng: np.random.Generator) -> int:
        """One positive document row of a query, drawn in proportion to its grade; of equal texts the first."""
        rows = self.distinct(self.grades[query])
        weights = np.array([self.grades[query][row] for row in rows], dtype=np.float64)
        return int(rng.choice(rows, p=weights / weights.sum()))

    def sample_queries(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` query rows without repetition (all of them when there are fewer)."""
        return rng.choice(len(self.query_ids), size=min(count, len(self.query_ids)), replace=False)

    def eligible(self, query: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(len(rows),) bool: the documents that may be a query's positives or negatives; row -1 is none."""
        judged = np.isin(rows, self.positive_for_any) | np.isin(rows, list(self.rejected[query]))
        return judged & ~np.isin(rows, list(self.ignored[query]))

    def distinct(self, rows: Iterable[int]) -> list[int]:
        """The rows in their order, of equal texts the first alone."""
        kept: dict[int, int] = {}
        for row in rows:
            kept.setdefault(int(self.first_copy[row]), int(row))
        return list(kept.values())

    @cached_property
    def negatives(self) -> np.ndarray:
        """Sorted document rows that negatives of other queries are drawn from; of equal texts the first."""
        return self._first_copies(self.positive_for_any)

    def _first_copies(self, rows: np.ndarray) -> np.ndarray:
        return rows[self.first_copy[rows] == rows]

    def hardest(self, scores: np.ndarray, first_row: int, depth: int) -> np.ndarray:
        """The best-scored documents of each query that are wrong for it.

        They are positive for some other query, or were judged wrong for this one.

        Of documents of equal text it finds one.

        Args:
            scores: (B, N) similarity of consecutive query rows to all documents.
            first_row: query row of `scores[0]`.
            depth: how many to keep per query.

        Returns:
            (B, depth) rows, best-scored first; where fewer exist, -1 fills the end.
        """
        pool = self.negatives
        found = np.full((len(scores), depth), -1, dtype=np.int64)
        for offset in range(len(scores)):
            query = first_row + offset
            rejected = self.distinct(sorted(self.rejected[query]))
            told = self.grades[query].keys() | self.rejected[query] | self.ignored[query]
            order = top_rows(scores[offset : offset + 1, pool], depth + len(told))[0]
            kept = [int(row) for row in pool[order] if row not in told]
            if rejected:
                kept = sorted([*kept, *rejected], key=lambda row, of=scores[offset]: (-of[row], row))
            found[offset, : min(depth, len(kept))] = kept[:depth]
        return found


class _Documents:
    """The documents by row, with what is judged of them and of their copies."""

    def __init__(self, row_of: dict[str, int], first_copy: np.ndarray) -> None:
        self._row_of, self._first_copy = row_of, first_copy
        self._copies: dict[int, list[int]] = {}
        for row, first in enumerate(first_copy.tolist()):
            self._copies.setdefault(first, []).append(row)

    def copies(self, rows: Iterable[int]) -> dict[int, None]:
        """The rows and all others of their texts."""
        return {copy: None for row in rows for copy in self._copies[self._first_copy[row]]}

    def judged(self, ids: Sequence[str], qrels: Qrels) -> tuple[dict[int, int], frozenset[int], frozenset[int]]:
        """The grades of one query's positives, the rows that it rejects, and those that are ignored for it.

        Args:
            ids: The ids under which the query is judged.
            qrels: The judgements.
        """
        united: dict[str, int] = {}
        for query_id in ids:
            for doc_id, grade in qrels[query_id].items():
                united[doc_id] = max(grade, united.get(doc_id, 0))
        own = {self._row_of[one] for one in ids if one in self._row_of and is_ignored(one, one, united)}
        positives: dict[int, int] = {}
        for doc_id, grade in sorted(united.items()):
            for row in self.copies([self._row_of[doc_id]]) if grade > 0 else ():
                positives[row] = max(grade, positives.get(row, 0))
        positives = {row: grade for row, grade in positives.items() if row not in own}
        ignored = frozenset(self.copies(own)).difference(positives)
        rejected = self.copies(self._row_of[doc_id] for doc_id, grade in united.items() if grade < 1)
        return positives, frozenset(rejected).difference(positives, ignored), ignored


def _first_copies(corpus: Corpus) -> np.ndarray:
    first: dict[str, int] = {}
    rows = [first.setdefault(normalised(document.contents), row) for row, document in enumerate(corpus.values())]
    return np.array(rows, dtype=np.int64)


def _united(qrels: Qrels, queries: Queries) -> list[list[str]]:
    """The ids of each query text, sorted."""
    by_text: dict[str, list[str]] = {}
    for query_id in sorted(qrels):
        by_text.setdefault(normalised(queries[query_id]), []).append(query_id)
    return list(by_text.values())


def draw(pool: Sequence[int] | np.ndarray, count: int, rng: np.random.Generator) -> list[int]:
    """Up to `count` different entries of `pool`; entries below zero are fillers and never drawn."""
    usable = [int(entry) for entry in pool if entry >= 0]
    if len(usable) <= count:
        return usable
    return [int(entry) for entry in rng.choice(usable, size=count, replace=False)]


def without(ranked: Iterable[int], ignored: frozenset[int], depth: int) -> list[int]:
    """The first `depth` rows of a ranking that are not ignored."""
    return [row for row in ranked if row not in ignored][:depth]


def most(ignored: Iterable[frozenset[int]]) -> int:
    """How much deeper a ranking must be for `without` to find as many rows of each query."""
    return max(map(len, ignored), default=0)
