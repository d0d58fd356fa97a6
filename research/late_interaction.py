"""Late interaction: every query token looks for its best document token (MaxSim; ColBERT, arXiv 2004.12832).

The multi-vector baseline on the same backbone. It keeps a state of every token of every document, where the student and
the bi-encoder keep one vector of each.

It is our own because PyLate cannot be installed beside the package. PyLate 1.6 wants transformers up to 5.3, and the
package wants 5.10 or later. PyLate 1.0 has no such bound, but does not import with sentence-transformers 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.core.progress import track
from rabtriever.data.judgements import Judgements
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.training.contrastive import ContrastiveModule

CELLS = 4_000_000  # cosines between tokens held at once
BATCH = 64


def maxsim(query_embeddings: Tensor, query_mask: Tensor, document_embeddings: Tensor, document_mask: Tensor) -> Tensor:
    """Sum over the tokens of a query of the largest cosine with any token of a document.

    Args:
        query_embeddings: (Q, Tq, H) states of the query tokens.
        query_mask: (Q, Tq), zero or False for padding, on whichever side.
        document_embeddings: (D, Td, H).
        document_mask: (D, Td), at least one token in each row.

    Returns:
        (Q, D), from minus to plus the number of tokens of the query.
    """
    queries, documents = F.normalize(query_embeddings, dim=-1), F.normalize(document_embeddings, dim=-1)
    return _maxsim_of_unit_states(queries, query_mask.bool(), documents, document_mask.bool())


def _maxsim_of_unit_states(queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor) -> Tensor:
    """The same for states of length one and bool masks, documents in blocks: only one block's cosines exist at a time.

    Where gradients flow, a block leaves behind no more than which token won, so that training is bounded alike.
    """
    num_queries, tokens, _ = queries.shape
    block = max(1, CELLS // (num_queries * tokens * documents.shape[1]))
    parts = []
    for start in range(0, len(documents), block):
        rows = slice(start, start + block)
        cosine = torch.einsum("qth,dsh->qtds", queries, documents[rows])  # (Q, Tq, block, Td)
        cosine = cosine.masked_fill_(~document_mask[rows], float("-inf"))
        best = cosine.max(-1).values if cosine.requires_grad else cosine.amax(-1)
        parts.append(best.masked_fill(~query_mask[:, :, None], 0.0).sum(1))
    return torch.cat(parts, dim=1)


class TokenIndex:
    """The token states of some documents, ready to score queries.

    Args:
        backbone: encodes both sides.
        document_ids: token ids of N documents' segments.
        batch_size: sequences in one forward pass.
        label: what the progress line says; no progress when None.
    """

    def __init__(
        self, backbone: Backbone, document_ids: Sequence[Sequence[int]], batch_size: int, label: str | None = None
    ) -> None:
        self.backbone, self.batch_size = backbone, batch_size
        self._blocks = list(_unit_states(backbone, document_ids, batch_size, label))
        self._count = len(document_ids)

    @property
    def bytes_per_document(self) -> float:
        """Bytes of the states kept, padding left out, on average."""
        tokens = sum(int(mask.sum()) for _, _, mask in self._blocks)
        return 4.0 * self.backbone.width * tokens / self._count

    @torch.no_grad()
    def scores(self, query_ids: Sequence[Sequence[int]], label: str | None = None) -> np.ndarray:
        """(Q, N) float32 MaxSim per query token, from -1 to 1, of queries given as token ids."""
        found = np.empty((len(query_ids), self._count), dtype=np.float32)
        for queries, states, mask in _unit_states(self.backbone, query_ids, min(self.batch_size, BATCH), label):
            tokens = mask.sum(1, keepdim=True)
            for documents, document_embeddings, document_mask in self._blocks:
                part = _maxsim_of_unit_states(states, mask, document_embeddings, document_mask) / tokens
                found[np.ix_(queries, documents)] = part.float().cpu().numpy()
        return found


@torch.no_grad()
def _unit_states(
    backbone: Backbone, sequences: Sequence[Sequence[int]], batch_size: int, label: str | None
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Batches by length: row numbers (B,), float32 token states (B, T, H) of length one, bool mask (B, T)."""
    was_training = backbone.training
    backbone.eval()
    order = np.argsort([len(sequence) for sequence in sequences], kind="stable")
    for start in track(range(0, len(order), batch_size), label):
        rows = order[start : start + batch_size]
        ids, mask = pad([sequences[row] for row in rows], backbone.device)
        yield rows, F.normalize(backbone.hidden_states(ids, mask), dim=-1), mask.bool()
    backbone.train(was_training)


class LateInteractionModule(ContrastiveModule):
    """Contrastive training in which MaxSim per query token takes the place of the cosine, in mining as well.

    Arguments and settings are those of `ContrastiveModule`.
    """

    def similarity(self, queries: Tensor, query_mask: Tensor, documents: Tensor, document_mask: Tensor) -> Tensor:
        """(B, D) MaxSim per query token."""
        return maxsim(queries, query_mask, documents, document_mask) / query_mask.sum(1, keepdim=True)

    def mine(self) -> np.ndarray:
        """(Q, depth) hard negatives by MaxSim."""
        return mine_with_maxsim(
            self.backbone, self.judgements, self.query_ids, self.document_ids, self.params.mining_depth
        )


def mine_with_maxsim(
    backbone: Backbone,
    judgements: Judgements,
    query_ids: Sequence[Sequence[int]],
    document_ids: Sequence[Sequence[int]],
    depth: int,
    batch_size: int = BATCH,
) -> np.ndarray:
    """The documents of the highest MaxSim with each query that are wrong for it, see `Judgements.hardest`.

    Returns:
        (Q, depth) document rows, best first, -1 where there are fewer.
    """
    eligible = sorted(set(judgements.positive_for_any.tolist()).union(*judgements.rejected))
    index = TokenIndex(backbone, [document_ids[row] for row in eligible], batch_size)
    scores = np.full((512, len(document_ids)), -np.inf, dtype=np.float32)
    found = []
    for start in range(0, len(query_ids), len(scores)):
        part = scores[: len(query_ids) - start]
        part[:, eligible] = index.scores(query_ids[start : start + len(part)])
        found.append(judgements.hardest(part, start, depth, eligible=True))
    return np.concatenate(found)
