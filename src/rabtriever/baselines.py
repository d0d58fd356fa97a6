"""Rows of the evaluation table for systems that are only compared with, never served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from rabtriever.backbone import Backbone
from rabtriever.evaluation import System, scoring_system
from rabtriever.late_interaction import TokenIndex
from rabtriever.prompt import Prompt
from rabtriever.records import Dataset, Queries
from rabtriever.scorer import Scorer


def late_interaction_system(
    dataset: Dataset, queries: Queries, backbone: Backbone, prompt: Prompt, batch_size: int, timed: int
) -> System:
    """MaxSim per query token with all documents; their token states are kept in memory."""
    contents = [document.contents for document in dataset.corpus.values()]
    index = TokenIndex(backbone, prompt.document.ids(contents), batch_size, "evaluate: late interaction, documents")
    found = index.scores(prompt.query.ids(list(queries.values())), "evaluate: late interaction, queries")

    def scores(texts: Sequence[str]) -> np.ndarray:
        return index.scores(prompt.query.ids(texts))

    return scoring_system(dataset, queries, scores, found, timed, index.bytes_per_document)


def unserved_student_system(
    dataset: Dataset, queries: Queries, scorer: Scorer, document_states: Tensor, timed: int
) -> System:
    """A student of which no index is built, or can be: every document scored, from the (N, H) states of the corpus.

    A student that folds has the scores that its exact index has (tested).
    """
    score = scorer.against(document_states)

    def scores(texts: Sequence[str]) -> np.ndarray:
        return score(scorer.encode(texts))

    stored = 4.0 * scorer.predictor.numbers_per_document
    return scoring_system(dataset, queries, scores, scores(list(queries.values())), timed, stored)
