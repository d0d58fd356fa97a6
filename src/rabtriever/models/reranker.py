"""The reranker that a teacher is: documents read once, queries asked of them, answers scored.

A document comes first and never sees the query, so its keys and values serve every query that is asked of it
(Rabtriever, arXiv 2604.23336; LaHoRe, arXiv 2412.16615).

    score(q, d) = yes_no_logit(q, d) + similarity . cos(b_q, b_d)

The yes/no logit, log p(yes) - log p(no), alone is the paper's score. The cosine of the embeddings b by the bi-encoder
is ours: the reranker starts where that is, and adds what it misses. The student has the cosine too, without any error,
and it folds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rabtriever.core.progress import Progress
from rabtriever.core.settings import ParamsError
from rabtriever.core.vectors import unit
from rabtriever.lm.answer import yes_no_logit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.gradient_checkpointing import read_pairs
from rabtriever.lm.padding import in_order, last_states, pad, widened
from rabtriever.lm.prompt import Prompt

PREFIX_BATCH = 32
PAIR_BLOCK = 65_536  # pairs whose states are gathered at once


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
    groups, states, layers = backbone.groups(mask), [], []
    for rows, longest in groups:
        part = ids[rows, :longest], mask[rows, :longest]
        read, cache = backbone.read(*part, use_cache=True)
        states.append(backbone.pool(read, part[1]))
        layers.append([widened(kept, ids.shape[1]) for layer in cache.layers for kept in (layer.keys, layer.values)])
    kept = [in_order(parts, groups) for parts in zip(*layers, strict=True)]
    return Prefix(list(zip(kept[::2], kept[1::2], strict=True)), mask, in_order(states, groups))


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
    groups = backbone.groups(mask)
    parts = [_ask(backbone, prefix, rows[part], ids[part, :longest], mask[part, :longest]) for part, longest in groups]
    return in_order(parts, groups)


def _ask(backbone: Backbone, prefix: Prefix, rows: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The context query states (P, H) of query segments read after their documents, all in one forward pass."""
    from transformers import DynamicCache

    cache = DynamicCache()
    document_mask = prefix.mask[rows]
    lengths = document_mask.sum(-1, keepdim=True)
    longest = int(lengths.max())
    for number, (keys, values) in enumerate(prefix.layers):
        cache.update(keys[rows, :, :longest], values[rows, :, :longest], number)
    positions = lengths + torch.arange(ids.shape[1], device=ids.device)  # (P, T)
    both = torch.cat([document_mask[:, :longest], mask], dim=1)
    states, _ = backbone.read(ids, both, position_ids=positions, past_key_values=cache, use_cache=True)
    return last_states(states, mask)


@torch.no_grad()
def check_reading(backbone: Backbone, prompt: Prompt) -> None:
    """Makes sure that segments of all lengths, read once, serve what follows as reading both in one go does.

    It does not where layers see a window of what is before them that is shorter than both segments, or where a model
    counts positions in a way of its own.

    Raises:
        ParamsError: it does not, or a token of the templates or an answer has no row in the embedding.
    """
    _check_rows(backbone, prompt)
    budgets = prompt.params.max_document_tokens, prompt.params.max_query_tokens
    rng, vocabulary = np.random.default_rng(0), len(backbone.head_weight)
    first, second = [
        [rng.integers(vocabulary, size=length).tolist() for length in (min(size, 4), size)] for size in budgets
    ]
    rows, second = [0, 1, 0, 1], [second[number] for number in (0, 0, 1, 1)]
    tolerance = max(0.01, 8 * torch.finfo(backbone.head_weight.dtype).eps)  # of a state's mean size
    try:
        whole = read_pairs(backbone, first, second, rows).asked
        prefix = read_documents(backbone, *pad(first, backbone.device))
        after = ask(backbone, prefix, torch.tensor(rows, device=backbone.device), *pad(second, backbone.device))
        apart = float(((after - whole).abs().mean(-1) / whole.abs().mean(-1)).max())
        fault = "" if apart <= tolerance else f"states differ by {100 * apart:.0f} % of their size"
    except (RuntimeError, IndexError, TypeError, AttributeError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        kind, window = backbone.model.config.model_type, getattr(backbone.model.config, "sliding_window", None)
        seen = f", whose layers see {window} tokens," if window else ""
        raise ParamsError(
            f"backbone.source: this {kind} model{seen} does not read a document once for all queries as it reads both "
            f"in one go ({fault}); lower prompt.max_document_tokens and prompt.max_query_tokens, or take another model"
        )


def _check_rows(backbone: Backbone, prompt: Prompt) -> None:
    fixed = {*prompt.document.template, *prompt.query.template, prompt.yes_id, prompt.no_id}
    last, rows = max(fixed), len(backbone.head_weight)
    if last >= rows:
        word = backbone.tokenizer.convert_ids_to_tokens(last)
        raise ParamsError(
            f"prompt: {word!r} is token {last}, but the model has {rows} rows of embedding and head; leave it out of "
            "templates and answers, or enlarge the model with its resize_token_embeddings and save it"
        )


class ScoredPairs(NamedTuple):
    """What the teacher says of some pairs: their index in the request, states (P, H) and scores (P,), float32."""

    pairs: np.ndarray
    states: np.ndarray
    scores: np.ndarray


class Reranker:
    """A trained teacher at work: scores and states of query-document pairs.

    Args:
        backbone: the teacher's weights.
        prompt: its segments and answers.
        biencoder: what the cosine is of; None where only yes/no logits are asked for, or the score has no cosine.

    Attributes:
        similarity: weight of the cosine in the score, in nats; 0 for the paper's score.
    """

    def __init__(self, backbone: Backbone, prompt: Prompt, biencoder: Backbone | None = None) -> None:
        self.backbone, self.prompt = backbone.eval(), prompt
        self.biencoder = biencoder.eval() if biencoder is not None else None
        self.similarity = similarity_of(backbone)

    def score_pairs(
        self,
        queries: Sequence[Sequence[int]],
        documents: Sequence[Sequence[int]],
        pairs: np.ndarray,
        batch_size: int,
        label: str | None = None,
        document_embeddings: np.ndarray | None = None,
    ) -> Iterator[ScoredPairs]:
        """Context query states and whole scores of pairs, grouped by document so that each document is read once.

        Args:
            queries: token ids of the query segments.
            documents: token ids of the document segments.
            pairs: (P, 2) query and document indices.
            batch_size: pairs in one forward pass.
            label: what the progress line says; no progress when None.
            document_embeddings: (N, H) of these documents by the bi-encoder, in their order; None encodes them here.

        Yields:
            Parts that together cover every pair once, in an order of their own.
        """
        cosines = self._cosines(queries, documents, pairs, batch_size, document_embeddings)
        for part in self.yes_no_logits(queries, documents, pairs, batch_size, label):
            yield part._replace(scores=part.scores + self.similarity * cosines[part.pairs])

    @torch.no_grad()
    def yes_no_logits(
        self,
        queries: Sequence[Sequence[int]],
        documents: Sequence[Sequence[int]],
        pairs: np.ndarray,
        batch_size: int,
        label: str | None = None,
    ) -> Iterator[ScoredPairs]:
        """Context query states and yes/no logits of pairs, grouped by document so that each document is read once.

        Args:
            queries: token ids of the query segments.
            documents: token ids of the document segments.
            pairs: (P, 2) query and document indices.
            batch_size: pairs in one forward pass.
            label: what the progress line says; no progress when None.

        Yields:
            Parts that together cover every pair once, in an order of their own.
        """
        device = self.backbone.device
        used, rank_of = np.unique(pairs[:, 1], return_inverse=True)
        by_length = np.argsort([len(documents[row]) for row in used], kind="stable")
        position = np.argsort(by_length, kind="stable")[rank_of]  # where each pair's document stands in `used`
        used = used[by_length]
        lengths = np.array([len(segment) for segment in queries])[pairs[:, 0]]
        order = np.lexsort((lengths, position // PREFIX_BATCH))
        progress = Progress(label, len(pairs)) if label else None
        bounds = np.searchsorted(position[order] // PREFIX_BATCH, np.arange(0, len(used) // PREFIX_BATCH + 2))
        for group in range(len(bounds) - 1):
            members = order[bounds[group] : bounds[group + 1]]
            if not len(members):
                continue
            first = group * PREFIX_BATCH
            chunk = [documents[row] for row in used[first : first + PREFIX_BATCH]]
            prefix = read_documents(self.backbone, *pad(chunk, device))
            for start in range(0, len(members), batch_size):
                part = members[start : start + batch_size]
                rows = torch.from_numpy(position[part] - first).to(device)
                ids, mask = pad([queries[row] for row in pairs[part, 0]], device)
                states = ask(self.backbone, prefix, rows, ids, mask)
                yield ScoredPairs(part, states.cpu().numpy(), self.yes_no_logit(states).cpu().numpy())
                if progress:
                    progress.advance(by=len(part))
        if progress:
            progress.close()

    def _cosines(
        self,
        queries: Sequence[Sequence[int]],
        documents: Sequence[Sequence[int]],
        pairs: np.ndarray,
        batch_size: int,
        document_embeddings: np.ndarray | None,
    ) -> np.ndarray:
        """(P,) the bi-encoder's cosine of each pair; zeros where the score has no such term."""
        found = np.zeros(len(pairs), dtype=np.float32)
        if self.similarity == 0 or not len(pairs):
            return found
        if self.biencoder is None:
            raise ValueError("the score has the bi-encoder's cosine, but no bi-encoder was given; give it one")
        if document_embeddings is None:
            document_embeddings = self.biencoder.encode(documents, batch_size)
        used, place = np.unique(pairs[:, 0], return_inverse=True)
        asked, known = (
            unit(self.biencoder.encode([queries[row] for row in used], batch_size)),
            unit(document_embeddings),
        )
        for start in range(0, len(pairs), PAIR_BLOCK):
            part = slice(start, start + PAIR_BLOCK)
            found[part] = np.einsum("ph,ph->p", asked[place[part]], known[pairs[part, 1]])
        return found

    def yes_no_logit(self, states: Tensor) -> Tensor:
        """log p(yes) - log p(no) of context query states (..., H): the yes/no logit."""
        return yes_no_logit(states, self.backbone.head_weight, self.prompt.yes_id, self.prompt.no_id)


def similarity_of(backbone: Backbone) -> float:
    """The weight of the cosine that a teacher was saved with, in nats; 0 where it has none."""
    return float(backbone.settings.get("similarity", 0.0))
