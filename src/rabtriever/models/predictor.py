"""The JEPA predictor and its fold.

`P(h_q, h_d)` rebuilds the teacher's document-conditioned query state from the two states encoded apart
(Rabtriever, arXiv 2604.23336). With z the states standardised per dimension and w = w_yes - w_no,

    P(h_q, h_d) = mean + scale * (S z_q + R z_d + W2 relu(A z_q + B z_d + b) + W3 ((M z_q) * (N z_d)) + c)

is linear in everything but a relu of a sum and a product of one factor from each side, so that the score w . P splits:

    score(q, d) = v . relu(a_q + u_d) + c_q . e_d + r_d + r_q

`u_d`, `e_d` and `r_d` are computed when the index is built, the rest once per query. The cosine in the teacher's score
adds H products, without any error. So the student contains the bi-encoder. Without products (`products: 0`) this is the
paper's two-layer network with linear skips.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rabtriever.core.settings import bounded

FOLD_CELLS = 400_000_000  # activations of the folded scores held at once


@dataclass(frozen=True)
class PredictorParams:
    """Section `predictor` of params.yaml.

    Attributes:
        hidden: relu units, m.
        products: multiplicative units, n; 0 for the paper's additive form.
    """

    hidden: int = bounded(ge=1)
    products: int = bounded(ge=0)


class FoldedDocuments(NamedTuple):
    """What the index keeps of each document: u (N, m), e (N, n), r (N,); n counts the cosine's products too."""

    additive: Tensor
    products: Tensor
    bias: Tensor


class FoldedQueries(NamedTuple):
    """What is computed of each query: a (Q, m), v (m,), c (Q, n), r (Q,)."""

    additive: Tensor
    weights: Tensor
    products: Tensor
    bias: Tensor


class Predictor(nn.Module):
    """Standardised states, one layer of relu units and of products, linear skips, and the score of what comes out.

    Args:
        width: embedding size, H.
        hidden: relu units, m.
        products: multiplicative units, n.
        similarity: the teacher's weight of the cosine; at 0 the score is that of the predicted state alone.
    """

    def __init__(self, width: int, hidden: int, products: int, similarity: float) -> None:
        super().__init__()
        self.width, self.shape, self.similarity = width, PredictorParams(hidden, products), similarity
        self.query_in = nn.Linear(width, hidden)  # A, b
        self.document_in = nn.Linear(width, hidden, bias=False)  # B
        self.out = nn.Linear(hidden, width)  # W2, c
        self.query_skip = nn.Linear(width, width, bias=False)  # S
        self.document_skip = nn.Linear(width, width, bias=False)  # R
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # `products` may be 0
            self.query_product = nn.Linear(width, products, bias=False)  # M
            self.document_product = nn.Linear(width, products, bias=False)  # N
            self.product_out = nn.Linear(products, width, bias=False)  # W3
        for name in ("query", "document", "target"):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Skips start at zero, products small: an untrained predictor says little."""
        for layer in (self.query_skip, self.document_skip):
            layer.weight.zero_()
        for layer in (self.query_product, self.document_product):
            layer.weight.normal_(std=self.width**-0.5)
        if self.shape.products:
            self.product_out.weight.normal_(std=0.1 * self.shape.products**-0.5)

    @property
    def numbers_per_document(self) -> int:
        """How many numbers of each document are kept: relu units, products (the cosine's too) and the bias."""
        return self.shape.hidden + self.shape.products + (self.width if self.similarity > 0 else 0) + 1

    @torch.no_grad()
    def standardise(self, queries: Tensor, documents: Tensor, targets: Tensor) -> None:
        """Sets the standardisation from samples: query embeddings, document embeddings and targets (., H)."""
        for name, sample in (("query", queries), ("document", documents), ("target", targets)):
            getattr(self, f"{name}_mean").copy_(sample.mean(0))
            getattr(self, f"{name}_scale").copy_(spread(sample))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Predicted context query states (..., H) from the embeddings of queries and documents (..., H)."""
        z_q = (queries - self.query_mean) / self.query_scale
        z_d = (documents - self.document_mean) / self.document_scale
        predicted = self.out(torch.relu(self.query_in(z_q) + self.document_in(z_d)))
        predicted = predicted + self.query_skip(z_q) + self.document_skip(z_d)
        if self.shape.products:
            predicted = predicted + self.product_out(self.query_product(z_q) * self.document_product(z_d))
        return self.target_mean + self.target_scale * predicted

    def scores(self, queries: Tensor, documents: Tensor, predicted: Tensor, direction: Tensor) -> Tensor:
        """Scores (...) of predicted states (..., H) along a direction (H,), plus the weighted cosine of the embeddings.

        This is the unfolded score, which training computes.
        """
        scores = predicted @ direction
        if self.similarity > 0:
            scores = scores + self.similarity * F.cosine_similarity(queries, documents, dim=-1)
        return scores

    @torch.no_grad()
    def fold_documents(self, documents: Tensor, direction: Tensor) -> FoldedDocuments:
        """Document side of the score, from embeddings (N, H); the direction (H,) is w_yes - w_no."""
        z_d = (documents - self.document_mean) / self.document_scale
        bias = self.document_skip(z_d) @ (self.target_scale * direction)
        products = self.document_product(z_d)
        if self.similarity > 0:
            products = torch.cat([products, F.normalize(documents, dim=-1)], dim=-1)
        return FoldedDocuments(self.document_in(z_d), products, bias)

    @torch.no_grad()
    def fold_queries(self, queries: Tensor, direction: Tensor) -> FoldedQueries:
        """Query side of the score, for the embeddings (Q, H) of the queries encoded alone."""
        z_q = (queries - self.query_mean) / self.query_scale
        scaled = self.target_scale * direction
        products = self.query_product(z_q) * (self.product_out.weight.T @ scaled)
        if self.similarity > 0:
            products = torch.cat([products, self.similarity * F.normalize(queries, dim=-1)], dim=-1)
        bias = self.target_mean @ direction + (self.query_skip(z_q) + self.out.bias) @ scaled
        return FoldedQueries(self.query_in(z_q), self.out.weight.T @ scaled, products, bias)


def folded_scores(queries: FoldedQueries, documents: FoldedDocuments, block: int = 2048) -> Tensor:
    """(Q, N) scores from the two folded sides, in torch: the reference, and the scan on a GPU.

    Documents are taken in blocks, smaller ones for many queries, so that the (Q, block, m) activations stay small.
    """
    parts = []
    block = max(1, min(block, FOLD_CELLS // max(1, queries.additive.numel())))
    for start in range(0, documents.additive.shape[0], block):
        rows = slice(start, start + block)
        inner = torch.relu(queries.additive[:, None, :] + documents.additive[None, rows, :])  # (Q, block, m)
        parts.append(inner @ queries.weights + queries.products @ documents.products[rows].T + documents.bias[rows])
    return torch.cat(parts, dim=1) + queries.bias[:, None]


def spread(states: Tensor) -> Tensor:
    """Standard deviation of (N, H) states per dimension, floored at a hundredth of its mean: (H,), never zero."""
    scale = states.std(0, correction=0)
    return scale.clamp(min=float(scale.mean()) * 0.01 + 1e-6)
