"""The learned inner-product shortlist: a FAISS index that proposes, the folded predictor that decides.

Two projections, of the query state and of the document state, are trained so that their inner product ranks like the
student itself; the document vectors go into a FAISS index. Used when a scan of the whole corpus would be too slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rabtriever.core.settings import bounded
from rabtriever.models.predictor import spread

CELLS_PER_PROBE = 16


@dataclass(frozen=True)
class IndexParams:
    """Section `index` of params.yaml.

    Attributes:
        document_prior: whether what the training queries tell about documents is added to the scores; see
            models/document_prior.py.
        exact_up_to: largest corpus that is scanned exactly; above it the shortlist is used.
        depth: documents the shortlist proposes; the folded predictor scores these. Not under 100, the largest cut-off
            of the metrics: an evaluation would be given more proposals than a search. A query with fewer proposals is
            scanned exactly.
        dimension: width of the shortlist's vectors.
        factory: FAISS index factory string (inner product), such as `Flat`, `HNSW32`, `IVF1024,SQ8`; its vectors are
            one number longer than `dimension`.
        precision: share of right hits wanted at the threshold of the calibration. A threshold is the smallest
            `relevance_score` from which on hits of dev queries are right in at least this share.
    """

    document_prior: bool
    exact_up_to: int = bounded(ge=0)
    depth: int = bounded(ge=100)
    dimension: int = bounded(ge=1)
    factory: str
    precision: float = bounded(gt=0, lt=1)


class Projections(nn.Module):
    """Affine maps of standardised states onto shortlist vectors; the document's last entry is its bias.

    Args:
        width: size of an embedding, H.
        dimension: shortlist vector size before the bias, s.
    """

    def __init__(self, width: int, dimension: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, dimension)
        self.document = nn.Linear(width, dimension + 1)
        for side in ("query", "document"):
            self.register_buffer(f"{side}_mean", torch.zeros(width))
            self.register_buffer(f"{side}_scale", torch.ones(width))

    @torch.no_grad()
    def standardise(self, queries: Tensor, documents: Tensor) -> None:
        """Sets the standardisation from the embeddings of queries (Q, H) and documents (N, H)."""
        for side, states in (("query", queries), ("document", documents)):
            getattr(self, f"{side}_mean").copy_(states.mean(0))
            getattr(self, f"{side}_scale").copy_(spread(states))

    def queries(self, states: Tensor) -> Tensor:
        """(Q, s + 1) query vectors; the last entry is 1 and meets the document's bias."""
        vectors = self.query((states - self.query_mean) / self.query_scale)
        return torch.cat([vectors, torch.ones_like(vectors[..., :1])], dim=-1)

    def documents(self, states: Tensor) -> Tensor:
        """(N, s + 1) document vectors."""
        return self.document((states - self.document_mean) / self.document_scale)


def build_faiss(vectors: np.ndarray, factory: str) -> Any:
    """A trained FAISS inner-product index over (N, s) float32 vectors.

    One of cells searches a sixteenth of them, where FAISS would search a single one.

    Raises:
        ValueError: a factory string that FAISS cannot read or train on this corpus.
    """
    import faiss

    index = empty_faiss(vectors.shape[1], factory)
    try:
        index.train(vectors)
        index.add(vectors)
    except RuntimeError as error:
        raise _unfit(factory, f"{len(vectors)} vectors of {vectors.shape[1]}", error) from error
    cells = faiss.try_extract_index_ivf(index)
    if cells is not None:
        cells.nprobe = max(1, cells.nlist // CELLS_PER_PROBE)
    return index


def empty_faiss(width: int, factory: str) -> Any:
    """The index of a factory string for vectors of a width, not trained.

    Raises:
        ValueError: FAISS cannot read the string, or makes no such index of this width.
    """
    import faiss

    try:
        return faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise _unfit(factory, f"vectors of {width}", error) from error


def _unfit(factory: str, vectors: str, error: RuntimeError) -> ValueError:
    reason = str(error).splitlines()[0]
    return ValueError(
        f"index.factory {factory!r} does not work for {vectors}: {reason}; take 'Flat', or 'HNSW32' for a large corpus"
    )


def overlap(approximate: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact top rows found in the shortlist, in per cent: (Q, D) and (Q, k) document rows.

    >>> overlap(np.array([[1, 2, 3]]), np.array([[3, 9]]))
    50.0
    """
    hits = [len(set(a.tolist()) & set(b.tolist())) for a, b in zip(approximate, exact, strict=True)]
    return 100.0 * sum(hits) / exact.size
