"""Segments of different lengths in one tensor: padded, read in groups of like length, and pooled.

Padding never changes a state (tested), but it is computed all the same: where one text in a batch is three times as
long as most, two thirds of the work would be padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CPU_TOKENS = 128  # take as long as one more pass costs; measured for 0.7 and for 22 million parameters
GPU_OPERATIONS = 5e11  # done while one more pass is launched, some milliseconds; an estimate, as is
GPU_TOKENS = 1024  # what it takes to fill one


def price_of_a_pass(device: torch.device, parameters: int) -> int:
    """Tokens that would take as long as one more pass through the layers of a model with so many parameters.

    >>> [price_of_a_pass(torch.device("cuda"), size) for size in (1_000_000, 7_000_000_000)]
    [250000, 1024]
    """
    return CPU_TOKENS if device.type == "cpu" else max(GPU_TOKENS, round(GPU_OPERATIONS / (2 * parameters)))


def groups_by_length(mask: Tensor, price: int) -> list[tuple[Tensor, int]]:
    """Rows of like length, in the groups that cost least: their tokens with padding, and a price for each group.

    Args:
        mask: (B, T) attention mask of rows that are padded behind their end.
        price: of a group, in tokens.

    Returns:
        Of each group its rows, ascending, and where the last of them ends; together they hold every row once.

    >>> mask = pad([[5] * 9, [5] * 90, [5] * 10] * 40)[1]
    >>> [(len(rows), longest) for rows, longest in groups_by_length(mask, 128)]
    [(80, 10), (40, 90)]
    """
    count, width = mask.shape
    if count * width <= price:
        return [(torch.arange(count, device=mask.device), width)]
    lengths = (mask * torch.arange(1, width + 1, device=mask.device)).amax(1).cpu().numpy()
    order = np.argsort(lengths, kind="stable")
    ends = np.flatnonzero(np.diff(lengths[order], append=width + 1)) + 1  # behind the rows of each distinct length
    groups = []
    for start, end in _cuts(np.append(0, ends), lengths[order][ends - 1], price):
        rows = np.sort(order[start:end])
        groups.append((torch.from_numpy(rows).to(mask.device), int(lengths[rows].max())))
    return groups


def _cuts(bounds: np.ndarray, longest: np.ndarray, price: int) -> list[tuple[int, int]]:
    """Start and end of each group, by dynamic programming over where the last of them starts.

    Args:
        bounds: (L + 1,) where rows of each of L lengths start, and the end.
        longest: (L,) those lengths, ascending.
        price: of a group.
    """
    least, start = np.zeros(len(bounds)), np.zeros(len(bounds), dtype=np.int64)
    for end in range(1, len(bounds)):
        costs = least[:end] + longest[end - 1] * (bounds[end] - bounds[:end]) + price
        start[end] = costs.argmin()
        least[end] = costs[start[end]]
    cuts, end = [], len(bounds) - 1
    while end > 0:
        cuts.append((int(bounds[start[end]]), int(bounds[end])))
        end = int(start[end])
    return cuts[::-1]


def widened(values: Tensor, tokens: int) -> Tensor:
    """Zeros behind (..., T, H), up to `tokens`."""
    missing = tokens - values.shape[-2]
    return F.pad(values, (0, 0, 0, missing)) if missing else values


def in_order(parts: Sequence[Tensor], groups: Sequence[tuple[Tensor, int]]) -> Tensor:
    """What was computed of each group, (rows, ...) of equal shape, back in the order of all rows."""
    if len(groups) == 1:
        return parts[0]
    rows = torch.cat([rows for rows, _ in groups])
    return torch.cat(list(parts))[rows.argsort()]


def last_states(states: Tensor, mask: Tensor) -> Tensor:
    """Picks each row's last unpadded state: (B, T, H) and (B, T) to (B, H), for padding on either side."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = (mask * positions).argmax(dim=1)  # (B,)
    return states[torch.arange(len(states), device=states.device), last]


def mean_states(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of each row's unpadded states: (B, T, H) and (B, T) to (B, H)."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def segment_mask(mask: Tensor, tokens: int, first: Tensor | None = None) -> Tensor:
    """What each token attends to, (B, 1, T, K) bool: every token of its own segment, and all that was read before.

    Documents never see the query, as with causal attention, so that they are still read once for all queries.

    Args:
        mask: (B, K) which of the K keys, cached ones first, are not padding.
        tokens: T, how many of the keys are read now.
        first: (B,) tokens of the first of two segments; they do not see the second.
    """
    seen = mask.bool()[:, None, None, :].expand(-1, 1, tokens, -1)
    if first is None:
        return seen
    positions = torch.arange(tokens, device=mask.device)
    within = positions < first[:, None]  # (B, T)
    return seen & ~(within[:, None, :, None] & ~within[:, None, None, :])


def pad(sequences: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Right-padded ids and mask, both (B, longest), int64. The pad id is 0; the mask hides it."""
    longest = max(len(sequence) for sequence in sequences)
    ids = np.zeros((len(sequences), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
