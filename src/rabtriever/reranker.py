"""The reranker that a teacher is: documents read once, queries asked of them, answers scored.

A document comes first and never sees the query, so its keys and values serve every query that is asked of it
(Rabtriever, arXiv 2604.23336; LaHoRe, arXiv 2412.16615). With `prompt.order: query_first`, there to compare with, the
two change places: queries are read once, as a prefix, and a document is what is asked.

    score(q, d) = evidence . (log p(yes) - log p(no)) + similarity . cos(h_q, h_d)

The evidence alone is the paper's score. The second term is ours: the evidence is added to the similarity of the two
states encoded alone, so that the reranker starts where a bi-encoder is and adds what that misses. Both states are at
hand (that of the document is on the teacher's own path), the student has them too, and the term folds. In training the
weight of the evidence is 1; what both weights are afterwards, dev queries tell (fitting.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.backbone import Backbone, last_states, pad
from rabtriever.objectives import answer_score
from rabtriever.progress import Progress
from rabtriever.prompt import Prompt

PREFIX_BATCH = 32


class Prefix(NamedTuple):
    """Documents read once: keys and values per layer, the mask they leave behind, and their own last states.

    Attributes:
        layers: per layer, keys and values (D, heads, T, head width).
        mask: (D, T) attention mask of the document tokens.
        states: (D, H) state of each document alone.
    """

    layers: list[tuple[Tensor, Tensor]]
    mask: Tensor
    states: Tensor


def read_documents(backbone: Backbone, ids: Tensor, mask: Tensor) -> Prefix:
    """Runs the model over document segments (D, T) and keeps keys and values. Gradients flow through them."""
    states, cache = backbone.read(ids, mask, use_cache=True)
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    return Prefix(layers, mask, backbone.pool(states, mask))


def ask(backbone: Backbone, prefix: Prefix, rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The context query states of query segments read after their documents.

    Args:
        backbone: the teacher.
        prefix: documents read before.
        rows: (P,) which document of `prefix` each query follows.
        ids: (P, T) right-padded query segments.
        mask: (P, T).

    Returns:
        (P, H): `h_T(q, d)`, equal to reading both segments in one go (tested).
    """
    from transformers import DynamicCache

    cache = DynamicCache()
    for number, (keys, values) in enumerate(prefix.layers):
        cache.update(keys[rows], values[rows], number)
    document_mask = prefix.mask[rows]
    positions = document_mask.sum(-1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)  # (P, T)
    both = torch.cat([document_mask, mask], dim=1)
    states, _ = backbone.read(ids, both, position_ids=positions, past_key_values=cache, use_cache=True)
    return last_states(states, mask)


class Annotation(NamedTuple):
    """What the teacher says of some pairs: their index in the request, states (P, H) and scores (P,), float32."""

    pairs: np.ndarray
    states: np.ndarray
    scores: np.ndarray


class Reranker:
    """A trained teacher at work: scores and states of query-document pairs.

    Args:
        backbone: the teacher's weights.
        prompt: its segments and answers.
    """

    def __init__(self, backbone: Backbone, prompt: Prompt) -> None:
        self.backbone = backbone.eval()
        self.prompt = prompt

    @torch.no_grad()
    def annotate(
        self,
        queries: Sequence[Sequence[int]],
        documents: Sequence[Sequence[int]],
        pairs: np.ndarray,
        batch_size: int,
        label: str | None = None,
    ) -> Iterator[Annotation]:
        """States and scores of pairs, grouped by document so that each is read once (by query where that is first).

        Args:
            queries: token ids of the query segments.
            documents: token ids of the document segments.
            pairs: (P, 2) query and document indices.
            batch_size: pairs in one forward pass.
            label: what the progress line says.

        Yields:
            Annotations that together cover every pair once, in an order of their own.
        """
        device = self.backbone.device
        leading, following = self.prompt.params.ordered(documents, queries)
        heads, tails = self.prompt.params.ordered(pairs[:, 1], pairs[:, 0])  # rows of the two in each pair
        used, head_of = np.unique(heads, return_inverse=True)
        used = used[np.argsort([len(leading[row]) for row in used], kind="stable")]
        rank = np.empty(len(used), dtype=np.int64)
        rank[np.searchsorted(np.sort(used), used)] = np.arange(len(used))
        position = rank[head_of]  # where what each pair starts with stands in `used`
        lengths = np.array([len(segment) for segment in following])[tails]
        order = np.lexsort((lengths, position // PREFIX_BATCH))
        progress = Progress(label, len(pairs)) if label else None
        alone = self._alone(following, tails, batch_size)
        bounds = np.searchsorted(position[order] // PREFIX_BATCH, np.arange(0, len(used) // PREFIX_BATCH + 2))
        for group in range(len(bounds) - 1):
            members = order[bounds[group] : bounds[group + 1]]
            if not len(members):
                continue
            first = group * PREFIX_BATCH
            chunk = [leading[row] for row in used[first : first + PREFIX_BATCH]]
            prefix = read_documents(self.backbone, *pad(chunk, device))
            for start in range(0, len(members), batch_size):
                part = members[start : start + batch_size]
                rows = torch.from_numpy(position[part] - first).to(device)
                ids, mask = pad([following[row] for row in tails[part]], device)
                states = ask(self.backbone, prefix, rows, ids, mask)
                scores = self.backbone.evidence * self.log_odds(states)
                if alone is not None:
                    asked = alone[torch.from_numpy(tails[part])].to(device)
                    scores = scores + self.backbone.similarity * F.cosine_similarity(asked, prefix.states[rows], dim=-1)
                yield Annotation(part, states.cpu().numpy(), scores.cpu().numpy())
                if progress:
                    progress.advance(by=len(part))
        if progress:
            progress.close()

    def _alone(self, segments: Sequence[Sequence[int]], rows: np.ndarray, batch_size: int) -> Tensor | None:
        """(S, H) states of the segments of `rows` encoded alone, others zero; None where the score needs none."""
        if self.backbone.similarity == 0:
            return None
        used = np.unique(rows)
        states = np.zeros((len(segments), self.backbone.width), dtype=np.float32)
        states[used] = self.backbone.encode([segments[row] for row in used], batch_size)
        return torch.from_numpy(states)

    def log_odds(self, states: Tensor) -> Tensor:
        """log p(yes) - log p(no) of context query states (..., H): the evidence."""
        return answer_score(states, self.backbone.head_weight, self.prompt.yes_id, self.prompt.no_id)
