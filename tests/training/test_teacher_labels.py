"""Labelled candidates: the teacher's scores and states under the pair that they belong to, and on disk."""

from __future__ import annotations

import numpy as np

from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.teacher_labels import TeacherLabels, label_candidates, read_candidates, save_candidates


def test_answers_are_filed_under_their_pair(backbone, prompt, toy, judgements, query_ids, document_ids):
    """A document gets the state or the score of another one: the teacher answers in an order of its own."""
    backbone.configure(similarity=7.0)
    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    asked, candidates = np.array([4, 9]), np.array([[7, 0, -1], [3, 7, 6]])
    corpus = np.random.default_rng(0).standard_normal((8, 32)).astype(np.float32)  # stands for the stored embeddings
    found = label_candidates(Reranker(backbone, prompt, backbone), inputs, asked, candidates, 2, "toy", corpus)
    head, alone = backbone.head_weight.detach().numpy(), backbone.encode(query_ids, 4)
    for place, row in np.ndenumerate(candidates):
        if row >= 0:
            query = asked[place[0]]
            (state,) = backbone.encode([document_ids[row] + query_ids[query]], 1)
            np.testing.assert_allclose(found.states[place], state, atol=2e-3)  # kept in half precision
            cosine = alone[query] @ corpus[row] / np.linalg.norm(alone[query]) / np.linalg.norm(corpus[row])
            wanted = state @ (head[prompt.yes_id] - head[prompt.no_id]) + 7.0 * cosine
            np.testing.assert_allclose(found.scores[place], wanted, atol=1e-4)
    assert found.scores[0, 2] == 0 == np.abs(found.states[0, 2]).max(), "nothing is said of a filler"
    assert (found.states.dtype, found.scores.dtype) == (np.float16, np.float32)


def test_what_is_counted(backbone, prompt, toy, judgements, query_ids, document_ids):
    """Fillers are counted as shown to the teacher, or positives of another query as a query's own."""
    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    sponge, kettle, torch = (judgements.doc_ids.index(name) for name in ("sponge", "kettle", "torch"))
    asked = np.array([judgements.query_ids.index(name) for name in ("sponge-0", "ladder-1")])
    candidates = np.array([[sponge, torch, kettle], [sponge, kettle, -1]])
    corpus = backbone.encode(document_ids, 4)
    found = label_candidates(Reranker(backbone, prompt, backbone), inputs, asked, candidates, 8, "toy", corpus)
    assert found.facts == {"queries": 2, "teacher_calls": 5, "positives": 2}
    assert found.query_rows is asked and found.candidates is candidates


def test_candidates_come_back_as_they_were(tmp_path):
    """States of one query are read as another's, or the embeddings belong to other queries than the lists."""
    rng = np.random.default_rng(0)
    labels = TeacherLabels(
        query_rows=np.array([7, 2]),
        candidates=np.array([[4, -1, 3], [0, 1, 2]])[:, ::-1],  # not contiguous
        states=rng.standard_normal((2, 3, 5)).astype(np.float16),
        scores=rng.standard_normal((2, 3)).astype(np.float32),
        facts={"queries": 2.0},
    )
    embeddings = rng.standard_normal((2, 5)).astype(np.float32)
    save_candidates(tmp_path / "candidates", labels, embeddings, {"teacher": "t" * 64})
    found, queries, manifest = read_candidates(tmp_path / "candidates")
    assert manifest.parents == {"teacher": "t" * 64} and found.facts == {"queries": 2.0}
    np.testing.assert_array_equal(queries, embeddings)
    for name in ("query_rows", "candidates", "states", "scores"):
        kept, read = getattr(labels, name), getattr(found, name)
        assert read.dtype == kept.dtype
        np.testing.assert_array_equal(read, kept)
