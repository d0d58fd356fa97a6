"""The store of document embeddings, sharded and resumable."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rabtriever.core.artifacts import ArtifactMismatchError, atomic_write
from rabtriever.core.progress import track
from rabtriever.lm.backbone import Backbone


def write_shards(
    encoder: Backbone, sequences: Sequence[Sequence[int]], folder: Path, shard_size: int = 50_000, batch_size: int = 256
) -> int:
    """Encodes token sequences into `folder/shard-NNNNN.npy`, (rows, H) float32 each; finished shards are skipped.

    Args:
        encoder: of the teacher.
        sequences: N token lists, in corpus order.
        folder: scratch folder that belongs to exactly these inputs.
        shard_size: rows of a shard.
        batch_size: sequences in one forward pass.

    Returns:
        How many shards were found finished.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = 0
    for number, start in enumerate(track(range(0, len(sequences), shard_size), "mine: documents")):
        path = folder / f"shard-{number:05d}.npy"
        if path.is_file():
            found += 1
            continue
        states = encoder.encode(sequences[start : start + shard_size], batch_size)
        with atomic_write(path, "wb") as file:
            np.save(file, states, allow_pickle=False)
    return found


def copy_shards(source: Path, target: Path) -> None:
    """Copies finished shards from scratch into an artefact folder."""
    for path in sorted(source.glob("shard-*.npy")):
        shutil.copyfile(path, target / path.name)


def read_embeddings(folder: str | Path, rows: int) -> np.ndarray:
    """All states of a store, (N, H) float32; one shard stays memory-mapped, several are joined.

    Raises:
        ArtifactMismatchError: the shards do not add up to `rows`.
    """
    shards = [np.load(path, mmap_mode="c", allow_pickle=False) for path in sorted(Path(folder).glob("shard-*.npy"))]
    found = sum(len(shard) for shard in shards)
    if found != rows:
        raise ArtifactMismatchError(
            f"{folder}: {found} document states in {len(shards)} shards, but the corpus has {rows} documents: "
            "run the stage mine again"
        )
    return shards[0] if len(shards) == 1 else np.concatenate(shards)
