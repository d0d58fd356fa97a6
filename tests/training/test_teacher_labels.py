"""What a round keeps of its candidates: the teacher's word, and which grades may be trained on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rabtriever.core.vectors import unit
from rabtriever.models.document_terms import encoded_documents, remember, score_weights
from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.mining import MiningParams
from rabtriever.training.teacher_labels import label_candidates


def test_grades_are_known_of_judged_documents_only(backbone, prompt, toy, judgements, query_ids, document_ids):
    """A document that is new to the corpus is trained on as wrong for every query that happens to rank it."""
    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    positive = next(iter(judgements.grades[0]))
    negative = next(row for row in judgements.positive_for_any if row not in judgements.grades[0])
    new = int(judgements.unjudged[0])
    params = MiningParams(depth=1, positives=1, random=0, margin=-1e6, batch_size=4, queries=0)
    candidates = np.array([[positive, negative, new, -1]])
    found = label_candidates(Reranker(backbone, prompt), inputs, np.array([0]), candidates, params, "toy")
    assert found.grades.tolist() == [[judgements.grades[0][positive], 0, -1, -1]]
    assert found.facts["teacher_calls"] == 3 and found.facts["possible_false_negatives"] == 0
    assert np.abs(found.scores[0, :3]).min() > 0 == found.scores[0, 3]


def test_a_possible_false_negative_is_not_known(backbone, prompt, toy, judgements, query_ids, document_ids):
    """A document that the teacher finds as good as the positive is trained on as wrong; or one outside the margin."""
    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    positive = next(iter(judgements.grades[0]))
    others = [int(row) for row in judgements.positive_for_any if row not in judgements.grades[0]]
    params = MiningParams(depth=1, positives=1, random=0, margin=0.0, batch_size=4, queries=0)
    candidates, asked = np.array([[positive, *others]]), (Reranker(backbone, prompt), inputs, np.array([0]))
    scores = label_candidates(*asked, candidates, params, "toy").scores[0]
    behind = np.sort(scores[0] - scores[1:])
    for close in (1, 2):  # a margin between two documents: so many are inside
        inside = replace(params, margin=float(behind[close - 1 : close + 1].mean()))
        found = label_candidates(*asked, candidates, inside, "toy")
        wanted = np.where(scores[0] - scores[1:] <= inside.margin, -1, 0)
        assert found.grades.tolist() == [[judgements.grades[0][positive], *wanted]]
        assert found.facts["possible_false_negatives"] == close == (wanted < 0).sum()


def test_what_was_judged_wrong_is_known(backbone, prompt, toy, judgements, query_ids, document_ids):
    """A negative that a user has written down is protected as a possible false one, where the teacher likes it."""
    positive, new = next(iter(judgements.grades[0])), int(judgements.unjudged[0])
    rejected = [frozenset([new]), *judgements.rejected[1:]]
    inputs = TrainingInputs(toy, replace(judgements, rejected=rejected), prompt, query_ids, document_ids)
    params = MiningParams(depth=1, positives=1, random=0, margin=1e6, batch_size=4, queries=0)
    reranker, candidates = Reranker(backbone, prompt), np.array([[positive, new]])
    found = label_candidates(reranker, inputs, np.array([0]), candidates, params, "toy")
    assert found.grades.tolist() == [[judgements.grades[0][positive], 0]]
    assert found.facts["possible_false_negatives"] == 0
    found = label_candidates(reranker, inputs, np.array([1]), candidates, params, "toy")
    assert found.grades[0, 1] == -1, "another query's word on it says nothing"


def test_before_training_a_student_ranks_by_what_is_known(backbone, prompt, toy, judgements, query_ids, document_ids):
    """The first round is another policy's; or it stops where the score has nothing but the yes_no_logit."""
    from rabtriever.training.stages.mine_candidates import _before_training

    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    backbone.configure(similarity=5.0, attraction=4.0, prior=2.0)
    states = backbone.encode(query_ids, 8)
    memory = remember(states, judgements.grades)
    encoded = encoded_documents(backbone.encode(document_ids, 8), score_weights(backbone), memory)
    kept = np.array([4, 0, 7])
    found = _before_training(inputs, kept, states[kept], encoded, 5.0, 3)
    wanted = 5.0 * unit(states[kept]) @ encoded.document_vectors.numpy().T + encoded.document_bias.numpy()
    np.testing.assert_array_equal(found, np.argsort(-wanted, axis=1)[:, :3])
    lexical = _before_training(inputs, kept, states[kept], encoded, 0.0, 3)
    assert lexical.shape == (3, 3) and not np.array_equal(lexical, found)


def test_answers_are_filed_under_their_pair(backbone, prompt, toy, judgements, query_ids, document_ids):
    """A document gets the state and the score of another one: the teacher answers in an order of its own."""
    inputs = TrainingInputs(toy, judgements, prompt, query_ids, document_ids)
    params = MiningParams(depth=1, positives=1, random=0, margin=0.0, batch_size=2, queries=0)
    asked, candidates = np.array([4, 9]), np.array([[7, 0, -1], [3, 7, 6]])
    found = label_candidates(Reranker(backbone, prompt), inputs, asked, candidates, params, "toy")
    head = backbone.head_weight.detach().numpy()
    for place, row in np.ndenumerate(candidates):
        if row >= 0:
            (state,) = backbone.encode([document_ids[row] + query_ids[asked[place[0]]]], 1)
            np.testing.assert_allclose(found.states[place], state, atol=2e-3)  # kept in half precision
            wanted = state @ (head[prompt.yes_id] - head[prompt.no_id])
            np.testing.assert_allclose(found.scores[place], wanted, atol=1e-5)
