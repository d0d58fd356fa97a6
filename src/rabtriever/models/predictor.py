"""The JEPA predictor and its fold.

`P(h_q, h_d)` rebuilds the teacher's document-conditioned query state from the two states encoded apart
(Rabtriever, arXiv 2604.23336). With z the states standardised per dimension and w = w_yes - w_no,

    P(h_q, h_d) = mean + scale * (S z_q + R z_d + W2 relu(A z_q + B z_d + b) + W3 ((M z_q) * (N z_d)) + c)

is linear in everything but a relu of a sum and a product of one factor from each side, so that the score w . P splits:

    score(q, d) = v . relu(a_q + u_d) + c_q . e_d + r_d + r_q

`u_d`, `e_d` and `r_d` are computed when the index is built, the rest once per query. The bi-encoder's
part of the teacher's score (document_terms.py) adds H products and a share of `r_d`, without any error. So the student
contains the bi-encoder.

A second layer of units would not split so: that form, a plain MLP, exists to compare with and cannot be served.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rabtriever.core.settings import bounded
from rabtriever.lm.encoder import split_embeddings
from rabtriever.models.document_terms import EncodedDocuments

FOLD_CELLS = 400_000_000  # activations of the folded scores held at once
BLOCK_CELLS = 8_000_000  # activations of one layer held at once where every pair is predicted


@dataclass(frozen=True)
class PredictorParams:
    """Section `predictor` of params.yaml.

    Attributes:
        form: `foldable`, or `mlp` with two hidden layers, for comparison in the study: it cannot be served.
        hidden: relu units of a layer, m.
        products: multiplicative units of the foldable form, n; 0 leaves the additive form of the paper's two-layer MLP.
    """

    form: Literal["foldable", "mlp"]
    hidden: int = bounded(ge=1)
    products: int = bounded(ge=0)


class FoldedDocuments(NamedTuple):
    """What the index keeps of each document: u (N, m), e (N, n), r (N,); n counts the similarity's products too."""

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
    """What every form has: standardised states, the first layer of units, linear skips, and the score of its output.

    A form of its own overrides `units` or `joined`.

    Args:
        width: embedding size, H. Those of queries may hold two embeddings side by side, W = 2H (see `lm.encoder`).
        shape: settings of its form.
        similarity: the teacher's weight of the query's unit embedding along a document's vector; at 0 the score is that
            of the predicted state alone.
    """

    def __init__(self, width: int, shape: PredictorParams, similarity: float) -> None:
        super().__init__()
        self.width, self.shape, self.similarity = width, shape, similarity
        self.query_in = nn.Linear(width, shape.hidden)  # A, b
        self.document_in = nn.Linear(width, shape.hidden, bias=False)  # B
        self.out = nn.Linear(shape.hidden, width)  # W2, c
        self.query_skip = nn.Linear(width, width, bias=False)  # S
        self.document_skip = nn.Linear(width, width, bias=False)  # R
        for name in ("query", "document", "target"):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        with torch.no_grad():
            for layer in (self.query_skip, self.document_skip):
                layer.weight.zero_()

    @property
    def numbers_per_document(self) -> int:
        """How many numbers of each document have to be kept to score it: its state."""
        return self.width

    @torch.no_grad()
    def standardise(self, queries: Tensor, documents: Tensor, targets: Tensor) -> None:
        """Sets the standardisation from samples: query embeddings (., W), document embeddings and targets (., H)."""
        read = split_embeddings(queries, self.width).read
        for name, sample in (("query", read), ("document", documents), ("target", targets)):
            getattr(self, f"{name}_mean").copy_(sample.mean(0))
            getattr(self, f"{name}_scale").copy_(spread(sample))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Predicted context query states (..., H) from the embeddings of queries (..., W) and documents (..., H)."""
        z_q = (split_embeddings(queries, self.width).read - self.query_mean) / self.query_scale
        z_d = (documents - self.document_mean) / self.document_scale
        return self.target_mean + self.target_scale * self.joined(z_q, z_d)

    def joined(self, z_q: Tensor, z_d: Tensor) -> Tensor:
        """The standardised prediction (..., H) from standardised states."""
        return self.out(self.units(z_q, z_d)) + self.query_skip(z_q) + self.document_skip(z_d)

    def units(self, z_q: Tensor, z_d: Tensor) -> Tensor:
        """Relu units (..., m) of the two states side by side; each side's share of the sum is computed on its own."""
        return torch.relu(self.query_in(z_q) + self.document_in(z_d))

    def scores(self, queries: Tensor, documents: EncodedDocuments, predicted: Tensor, direction: Tensor) -> Tensor:
        """Scores (...) of predicted states (..., H) along a direction (H,), plus the bi-encoder's part of the score."""
        scores = predicted @ direction
        if self.similarity > 0:
            compared = split_embeddings(queries, self.width).compared
            near = (F.normalize(compared, dim=-1) * documents.document_vectors).sum(-1)
            scores = scores + self.similarity * near + documents.document_bias
        return scores

    @torch.no_grad()
    def all_scores(self, queries: Tensor, documents: EncodedDocuments, direction: Tensor) -> Tensor:
        """(Q, N) scores of every pair of query states and N documents, unfolded: every pair is predicted.

        Documents are taken in blocks, so that the (Q, block, m) activations stay small.
        """
        block = max(1, BLOCK_CELLS // (max(len(queries), 1) * max(self.width, self.shape.hidden)))
        asked, found = queries[:, None], []
        for start in range(0, len(documents.states), block):
            part = EncodedDocuments(*(side[None, start : start + block] for side in documents))
            found.append(self.scores(asked, part, self(asked, part.states), direction))
        return torch.cat(found, dim=1)


class FoldablePredictor(Predictor):
    """One layer of relu units and products of one factor from each side: its score splits, as above.

    Args:
        width, similarity: see Predictor.
        hidden: additive units, m.
        products: multiplicative units.
    """

    def __init__(self, width: int, hidden: int, products: int, similarity: float) -> None:
        super().__init__(width, PredictorParams("foldable", hidden, products), similarity)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # `products` may be 0
            self.query_product = nn.Linear(width, products, bias=False)  # M
            self.document_product = nn.Linear(width, products, bias=False)  # N
            self.product_out = nn.Linear(products, width, bias=False)  # W3
        with torch.no_grad():
            for layer in (self.query_product, self.document_product):
                layer.weight.normal_(std=max(width, 1) ** -0.5)
            if products:
                self.product_out.weight.normal_(std=0.1 * products**-0.5)

    @property
    def numbers_per_document(self) -> int:
        """The folded ones: additive units, products (the similarity's too) and the bias."""
        return self.shape.hidden + self.shape.products + (self.width if self.similarity > 0 else 0) + 1

    def joined(self, z_q: Tensor, z_d: Tensor) -> Tensor:
        """See Predictor; with the products."""
        predicted = super().joined(z_q, z_d)
        if self.shape.products:
            predicted = predicted + self.product_out(self.query_product(z_q) * self.document_product(z_d))
        return predicted

    @torch.no_grad()
    def fold_documents(self, documents: EncodedDocuments, direction: Tensor) -> FoldedDocuments:
        """Document side of the score; the direction (H,) is w_yes - w_no, weighted."""
        z_d = (documents.states - self.document_mean) / self.document_scale
        bias = self.document_skip(z_d) @ (self.target_scale * direction)
        products = self.document_product(z_d)
        if self.similarity > 0:
            products = torch.cat([products, documents.document_vectors], dim=-1)
            bias = bias + documents.document_bias
        return FoldedDocuments(self.document_in(z_d), products, bias)

    @torch.no_grad()
    def fold_queries(self, queries: Tensor, direction: Tensor) -> FoldedQueries:
        """Query side of the score, for the embeddings (Q, W) of the queries encoded alone."""
        z_q = (split_embeddings(queries, self.width).read - self.query_mean) / self.query_scale
        scaled = self.target_scale * direction
        weights = self.out.weight.T @ scaled
        products = self.query_product(z_q) * (self.product_out.weight.T @ scaled)
        if self.similarity > 0:
            compared = split_embeddings(queries, self.width).compared
            products = torch.cat([products, self.similarity * F.normalize(compared, dim=-1)], dim=-1)
        bias = self.target_mean @ direction + (self.query_skip(z_q) + self.out.bias) @ scaled
        return FoldedQueries(self.query_in(z_q), weights, products, bias)


class MlpPredictor(Predictor):
    """A plain MLP of two hidden relu layers with the same skips, to compare with: its score does not fold.

    Args:
        width, similarity: see Predictor.
        hidden: units of each layer.
    """

    def __init__(self, width: int, hidden: int, similarity: float) -> None:
        super().__init__(width, PredictorParams("mlp", hidden, products=0), similarity)
        self.middle = nn.Linear(hidden, hidden)

    def units(self, z_q: Tensor, z_d: Tensor) -> Tensor:
        """Relu units (..., m) of the second layer."""
        return torch.relu(self.middle(super().units(z_q, z_d)))


def build_predictor(width: int, shape: PredictorParams, similarity: float) -> Predictor:
    """A new predictor of states of size `width`, with the teacher's weight of the similarity."""
    if shape.form == "mlp":
        return MlpPredictor(width, shape.hidden, similarity)
    return FoldablePredictor(width, shape.hidden, shape.products, similarity)


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
