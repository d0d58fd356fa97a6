"""Rows of the evaluation table for systems that are only compared with, never served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset, Queries
from rabtriever.evaluation.systems import System, scoring_system
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_terms import EncodedDocuments, encoded_documents
from rabtriever.search.scorer import Scorer, inner_products
from rabtriever.training.fitting import TERMS, fit_on_dev
from rabtriever.training.inputs import TrainingInputs
from research.late_interaction import TokenIndex


def late_interaction_system(
    dataset: Dataset, queries: Queries, backbone: Backbone, prompt: Prompt, batch_size: int
) -> System:
    """MaxSim per query token with all documents; their token states are kept in memory."""
    contents = [document.contents for document in dataset.corpus.values()]
    index = TokenIndex(backbone, prompt.document.ids(contents), batch_size, "evaluate: late interaction, documents")
    found = index.scores(prompt.query.ids(list(queries.values())), "evaluate: late interaction, queries")

    def scores(texts: Sequence[str]) -> np.ndarray:
        return index.scores(prompt.query.ids(texts))

    return scoring_system(dataset, queries, scores, found, index.bytes_per_document)


def calibrated_system(
    inputs: TrainingInputs,
    queries: Queries,
    backbone: Backbone,
    depth: int,
    temperature: float,
    batch_size: int,
) -> System:
    """A bi-encoder with the student's terms of the training queries, their weights fitted on the same dev queries.

    What a student gains by them is no merit of its teacher's reading: this row says how much that is.
    """
    terms = [name for name in TERMS if name != "yes_no_logit"]
    fit, states, memory = fit_on_dev(inputs, backbone, terms, depth, temperature, batch_size)
    documents = encoded_documents(states, fit.weights, memory)
    products, document_bias = inner_products(documents.document_vectors.numpy()), documents.document_bias.numpy()

    def scores(texts: Sequence[str]) -> np.ndarray:
        asked = unit(backbone.encode(inputs.prompt.query.ids(texts), batch_size))
        return products(fit.weights.similarity * asked) + document_bias

    stored = 4.0 * (states.shape[1] + 1)
    return scoring_system(inputs.dataset, queries, scores, scores(list(queries.values())), stored)


def unserved_student_system(dataset: Dataset, queries: Queries, scorer: Scorer, documents: EncodedDocuments) -> System:
    """A student of which no index is built, or can be: every document scored, from the states of the corpus.

    A student that folds has the scores that its exact index has (tested).
    """
    score = scorer.against(documents)

    def scores(texts: Sequence[str]) -> np.ndarray:
        return score(scorer.encode(texts))

    stored = 4.0 * scorer.predictor.numbers_per_document
    return scoring_system(dataset, queries, scores, scores(list(queries.values())), stored)
