"""Candidate lists: properties over random corpora, and the ranking they are taken from."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from rabtriever.core.vectors import top_rows
from rabtriever.training.mining import MiningParams, bi_encoder_ranking, select_candidates


def mining(depth: int = 2, positives: int = 1, random: int = 1) -> MiningParams:
    """Settings with these sizes."""
    return MiningParams(depth=depth, positives=positives, random=random, batch_size=8, queries=0)


def selected(ranking, grades, size, params, rng) -> np.ndarray:
    """Candidates where no document is ignored and no text repeats."""
    return select_candidates(ranking, grades, [frozenset()] * len(grades), np.arange(size), params, rng)


@st.composite
def minings(draw):
    """Settings, corpus size, rankings and grades."""
    params = mining(*[draw(st.integers(0, 6)) for _ in range(3)])
    size = draw(st.integers(1, 15))
    queries = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    depth = draw(st.integers(0, size))
    ranking = np.stack([rng.permutation(size)[:depth] for _ in range(queries)])
    grades = [
        draw(st.dictionaries(st.integers(0, size - 1), st.integers(1, 3), max_size=min(4, size)))
        for _ in range(queries)
    ]
    return params, size, ranking, grades


@given(
    st.integers(1, 40),
    st.integers(0, 45),
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5000001, np.nan]), min_size=1, max_size=6),
    st.integers(0, 99),
)
def test_top_rows_are_those_of_a_stable_sort(size, depth, values, seed):
    """Ties that fall as they like give another run, and other candidates, on every machine."""
    scores = np.random.default_rng(seed).choice(np.array(values, dtype=np.float32), size=(3, size))
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
    found = top_rows(scores, depth)
    assert found.dtype == wanted.dtype and found.tolist() == wanted.tolist()
    assert top_rows(scores[:0], depth).shape == (0, min(depth, size))


@given(minings(), st.integers(0, 99))
@example((mining(0, 0, 6), 6, np.zeros((20, 0), int), [{}] * 20), 0)
def test_candidates(mined, seed):
    """A candidate twice, a positive or a high-ranked document missing, too few or too many, or another list per run."""
    params, size, ranking, grades = mined
    found = selected(ranking, grades, size, params, np.random.default_rng(seed))
    assert np.array_equal(found, selected(ranking, grades, size, params, np.random.default_rng(seed)))
    assert found.shape == (len(ranking), min(params.positives + params.depth + params.random, size))
    for row, ranked, judged in zip(found.tolist(), ranking.tolist(), grades, strict=True):
        chosen = [entry for entry in row if entry >= 0]
        assert row == chosen + [-1] * (len(row) - len(chosen)), "fillers stand at the end"
        assert len(set(chosen)) == len(chosen) and all(entry < size for entry in chosen)
        kept = sorted(judged.values(), reverse=True)[: params.positives]
        assert sorted((judged[entry] for entry in chosen if entry in judged), reverse=True)[: len(kept)] == kept
        top = set(ranked[: params.depth])
        assert top <= set(chosen)
        fixed = len(top | set(chosen[: len(kept)]))
        assert len(chosen) == min(fixed + params.random, size), "as many random documents as were asked for"


def test_best_grades_come_first():
    """The weak positives of a query crowd out its best one."""
    found = selected(np.zeros((1, 0), int), [{3: 1, 5: 3, 7: 2, 1: 2}], 9, mining(0, 3, 0), _rng())
    assert found.tolist() == [[5, 1, 7]]


def test_seeds_give_other_random_documents():
    """Every seed shows the same "random" documents."""
    lists = {tuple(selected(np.zeros((1, 0), int), [{}], 1000, mining(0, 0, 5), _rng(seed))[0]) for seed in range(9)}
    assert len(lists) == 9


def test_queries_get_different_random_documents():
    """One draw is reused for all queries, so that the teacher sees a handful of documents only."""
    found = selected(np.zeros((6, 0), int), [{}] * 6, 1000, mining(0, 0, 5), _rng())
    assert len(np.unique(found)) > 20


def test_top_rows_orders_ties_by_row():
    """Equal scores are ordered by chance, so two runs mine different documents; or the depth exceeds the corpus."""
    scores = np.array([[0.5, 0.9, 0.5, 0.9], [0.0, 0.0, 0.0, -1.0]], dtype=np.float32)
    assert top_rows(scores, 3).tolist() == [[1, 3, 0], [0, 1, 2]]
    assert top_rows(scores, 9).tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert top_rows(scores, 0).shape == (2, 0)


def test_a_query_is_no_candidate_of_its_own():
    """P06: the teacher is shown the query as a document, or a list has a document less for its sake."""
    ranking = np.array([[3, 5, 7, 1], [3, 5, 7, 1]])
    ignored = [frozenset({3}), frozenset()]
    found = select_candidates(ranking, [{}, {}], ignored, np.arange(20), mining(2, 0, 0), _rng())
    assert found.tolist() == [[5, 7], [3, 5]]
    everything = select_candidates(ranking, [{}, {}], ignored, np.arange(9), mining(2, 0, 7), _rng())
    assert sorted(everything[0].tolist()) == [-1, 0, 1, 2, 4, 5, 6, 7, 8]
    assert sorted(everything[1].tolist()) == list(range(9))


def test_a_text_is_a_candidate_once():
    """P07: copies of one document take the places of others, or stand beside it as if they were wrong."""
    first_copy = np.array([0, 1, 0, 3, 1, 5, 6, 0])
    grades = [{0: 1, 2: 1, 7: 1, 3: 1}]
    for seed in range(9):
        found = select_candidates(
            np.array([[2, 4, 1, 5]]), grades, [frozenset()], first_copy, mining(3, 2, 2), _rng(seed)
        )
        assert found[0, :3].tolist() == [0, 3, 4]
        shown = [row for row in found[0].tolist() if row >= 0]
        assert len({first_copy[row] for row in shown}) == len(shown)


def test_the_ranking_is_by_cosine():
    """Long vectors rank first, or queries after the first part have the ranking of others."""
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((700, 4)), rng.standard_normal((9, 4)) * rng.uniform(0.1, 50, (9, 1))
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)
    wanted = np.argsort(-(queries @ documents.T) / lengths, axis=1)[:, :3]
    np.testing.assert_array_equal(bi_encoder_ranking(queries, documents, 3), wanted)
    np.testing.assert_array_equal(bi_encoder_ranking(queries[:1], documents, 3), wanted[:1])
    assert bi_encoder_ranking(queries[:2], documents, 20).shape == (2, 9)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)
