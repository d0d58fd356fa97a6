"""The document prior on top of any system of the table: its first documents ranked again with the prior added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset, Run
from rabtriever.lm.backbone import Backbone
from rabtriever.models.document_prior import PriorFeatures, PriorWeights, prior_features, prior_scores
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.prior_fitting import DEPTH, fit_prior

BATCH = 256


@dataclass(frozen=True)
class Prior:
    """What the training queries tell of the documents, as one model's embeddings see them.

    Attributes:
        model: encodes queries.
        features: of the documents.
        row_of: document id -> row of the features.
    """

    model: Backbone
    features: PriorFeatures
    row_of: Mapping[str, int]

    @classmethod
    def of(cls, model: Backbone, inputs: TrainingInputs, document_embeddings: np.ndarray) -> Prior:
        """The prior in the embeddings of a model; those of the documents are (N, H), in corpus order."""
        asked = model.encode(inputs.query_ids, BATCH)
        features = prior_features(document_embeddings, asked, inputs.judgements.grades)
        return cls(model, features, {doc_id: row for row, doc_id in enumerate(inputs.dataset.corpus)})

    def fitted(self, run: Run, dataset: Dataset, inputs: TrainingInputs, nats: float = 1.0) -> PriorWeights:
        """Weights for a system, fitted on its run of dev queries.

        Args:
            run: dev query id -> document id -> score.
            dataset: has the texts and judgements of dev.
            inputs: has the prompt.
            nats: what one unit of a score is in nats.
        """
        ranked = [sorted(found.items(), key=lambda item: (-item[1], item[0]))[:DEPTH] for found in run.values()]
        width = max((len(one) for one in ranked), default=1)
        rows, scores = np.full((len(ranked), width), -1), np.zeros((len(ranked), width))
        for number, one in enumerate(ranked):
            rows[number, : len(one)] = [self.row_of[doc_id] for doc_id, _ in one]
            scores[number, : len(one)] = [nats * score for _, score in one]
        judged = dataset.qrels["dev"]
        grades = [{self.row_of[doc_id]: grade for doc_id, grade in judged[query].items()} for query in run]
        return fit_prior(rows, scores, self._asked(run, dataset, inputs), self.features, grades)

    def added(
        self, run: Run, dataset: Dataset, inputs: TrainingInputs, weights: PriorWeights, nats: float = 1.0
    ) -> Run:
        """A run with the prior added to every score, in nats; arguments as of `fitted`."""
        found: Run = {}
        for query, asked in zip(run, unit(self._asked(run, dataset, inputs)), strict=True):
            names = list(run[query])
            rows = np.array([self.row_of[name] for name in names], dtype=np.int64)
            more = prior_scores(asked, rows, self.features, weights)
            found[query] = {name: nats * run[query][name] + float(one) for name, one in zip(names, more, strict=True)}
        return found

    def _asked(self, run: Run, dataset: Dataset, inputs: TrainingInputs) -> np.ndarray:
        return self.model.encode(inputs.prompt.query.ids([dataset.queries[query] for query in run]), BATCH)
