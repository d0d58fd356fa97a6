"""What a round keeps of its candidates: the teacher's word, and which grades may be trained on."""

from __future__ import annotations

import numpy as np

from rabtriever.annotation import annotate_candidates
from rabtriever.inputs import TrainingInputs
from rabtriever.mining import MiningParams
from rabtriever.reranker import Reranker


def test_grades_are_known_of_judged_documents_only(backbone, prompt, toy, supervision, query_ids, document_ids):
    """A document that is new to the corpus is trained on as wrong for every query that happens to rank it."""
    inputs = TrainingInputs(toy, supervision, prompt, query_ids, document_ids)
    positive = next(iter(supervision.grades[0]))
    negative = next(row for row in supervision.judged if row not in supervision.grades[0])
    new = int(supervision.unjudged[0])
    params = MiningParams(depth=1, positives=1, random=0, margin=-1e6, batch_size=4, queries=0)
    candidates = np.array([[positive, negative, new, -1]])
    found = annotate_candidates(Reranker(backbone, prompt), inputs, np.array([0]), candidates, params, "toy")
    assert found.grades.tolist() == [[supervision.grades[0][positive], 0, -1, -1]]
    assert found.facts["teacher_calls"] == 3 and found.facts["possible_false_negatives"] == 0
    assert np.abs(found.scores[0, :3]).min() > 0 == found.scores[0, 3]
