"""Why a document has its score: the parts that the folded predictor adds up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rabtriever.models.predictor import FoldedDocuments, FoldedQueries


@dataclass(frozen=True)
class Explanation:
    """The parts of one score, in nats of the teacher's answer; they sum to it.

    Attributes:
        query: the query.
        doc_id: the document's id.
        relu_units: the reranker's yes/no logit as rebuilt for this pair by units that read both texts.
        product_units: the rest of that logit that depends on the pair: products of a factor of each text.
        bi_encoder_score: weighted cosine of query and document, each encoded alone. What the training queries tell
            about the document's place is in it.
        document_bias: what the document has with every query.
        query_bias: what the query has with every document; it changes no ranking.
    """

    query: str
    doc_id: str
    relu_units: float
    product_units: float
    bi_encoder_score: float
    document_bias: float
    query_bias: float

    @property
    def parts(self) -> dict[str, float]:
        """The parts by name."""
        names = ("relu_units", "product_units", "bi_encoder_score", "document_bias", "query_bias")
        return {name: getattr(self, name) for name in names}

    @property
    def total(self) -> float:
        """The score: the sum of the parts."""
        return math.fsum(self.parts.values())


def explain(
    query: str, doc_id: str, folded: FoldedQueries, document: FoldedDocuments, product_units: int
) -> Explanation:
    """The parts of the score of one query (a row of `folded`) with one document (a row of `document`).

    Args:
        query: its text.
        doc_id: the document's id.
        folded: the query's side, of one row.
        document: the document's side, of one row.
        product_units: how many of the products are of the predictor; the rest is of the bi-encoder.
    """
    additive, weights, factors, query_bias = (tensor.cpu().numpy().astype(np.float64) for tensor in folded)
    sums, others, document_bias = (tensor.cpu().numpy().astype(np.float64) for tensor in document)
    products = factors[0] * others[0]
    return Explanation(
        query,
        doc_id,
        relu_units=float(np.maximum(additive[0] + sums[0], 0) @ weights),
        product_units=float(products[:product_units].sum()),
        bi_encoder_score=float(products[product_units:].sum()),
        document_bias=float(document_bias[0]),
        query_bias=float(query_bias[0]),
    )
