"""Rows of the evaluation table for systems that are only compared with, never served."""

from __future__ import annotations

import numpy as np

from rabtriever.backbone import Backbone
from rabtriever.evaluation import DEPTH, System, _run, _seconds
from rabtriever.late_interaction import TokenIndex
from rabtriever.mining import top_rows
from rabtriever.prompt import Prompt
from rabtriever.records import Dataset, Queries


def late_interaction_system(
    dataset: Dataset, queries: Queries, backbone: Backbone, prompt: Prompt, batch_size: int, timed: int
) -> System:
    """MaxSim per query token with all documents; their token states are kept in memory."""
    contents = [document.contents for document in dataset.corpus.values()]
    index = TokenIndex(backbone, prompt.document.ids(contents), batch_size, "evaluate: late interaction, documents")
    texts = list(queries.values())
    found = index.scores(prompt.query.ids(texts), "evaluate: late interaction, queries")
    rows = top_rows(found, DEPTH)
    seconds = _seconds(lambda text: top_rows(index.scores(prompt.query.ids([text])), 10), texts[:timed])
    values = np.take_along_axis(found, rows, axis=1)
    return System(_run(dataset, queries, rows, values), 1000 * seconds, index.bytes_per_document)
