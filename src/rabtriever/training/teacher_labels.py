"""Candidates with what the teacher says of them: made by mining, read by distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rabtriever.core.artifacts import Manifest, atomic_folder, read_manifest, write_manifest
from rabtriever.core.tensors import tensor_file
from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs

FILE = "candidates.safetensors"


@dataclass(frozen=True)
class TeacherLabels:
    """Labelled candidates of some training queries.

    Attributes:
        query_rows: (Q,) rows of the training queries, in the numbering of `Judgements`.
        candidates: (Q, C) document rows, -1 for none.
        states: (Q, C, H) float16 context query states of the teacher.
        scores: (Q, C) float32 teacher scores, nats.
        facts: counts and shares worth logging.
    """

    query_rows: np.ndarray
    candidates: np.ndarray
    states: np.ndarray
    scores: np.ndarray
    facts: dict[str, float]


def label_candidates(
    reranker: Reranker,
    inputs: TrainingInputs,
    query_rows: np.ndarray,
    candidates: np.ndarray,
    batch_size: int,
    label: str,
    document_embeddings: np.ndarray,
) -> TeacherLabels:
    """Shows the teacher every candidate once, each document read once for all its queries.

    Args:
        reranker: the teacher at work.
        inputs: the training data, tokenised.
        query_rows: (Q,) rows of the training queries, in the numbering of `Judgements`.
        candidates: (Q, C) document rows, -1 for none.
        batch_size: pairs in one forward pass.
        label: what the progress line says.
        document_embeddings: (N, H) of all documents encoded alone.
    """
    filled = np.argwhere(candidates >= 0)  # (P, 2)
    pairs = np.stack([query_rows[filled[:, 0]], candidates[filled[:, 0], filled[:, 1]]], axis=1)
    width = reranker.backbone.width
    states = np.zeros((*candidates.shape, width), dtype=np.float16)
    scores = np.zeros(candidates.shape, dtype=np.float32)
    texts = inputs.query_ids, inputs.document_ids
    for part in reranker.score_pairs(*texts, pairs, batch_size, label, document_embeddings):
        rows, columns = filled[part.pairs].T
        states[rows, columns] = part.states
        scores[rows, columns] = part.scores
    known = [list(inputs.judgements.grades[row]) for row in query_rows]
    positives = sum(int(np.isin(rows, judged).sum()) for rows, judged in zip(candidates, known, strict=True))
    facts = {"queries": float(len(query_rows)), "teacher_calls": float(len(pairs)), "positives": float(positives)}
    return TeacherLabels(query_rows, candidates, states, scores, facts)


def save_candidates(
    folder: str | Path, found: TeacherLabels, query_embeddings: np.ndarray, parents: dict[str, str]
) -> None:
    """Writes labelled candidates, and the embeddings (Q, H) of their queries."""
    from safetensors.numpy import save_file

    with atomic_folder(folder) as target:
        arrays = {
            "query_rows": found.query_rows,
            "query_embeddings": query_embeddings,
            "candidates": found.candidates,
            "states": found.states,
            "scores": found.scores,
        }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, target / FILE)
        write_manifest(target, "candidates", parents, found.facts)


def read_candidates(folder: str | Path) -> tuple[TeacherLabels, np.ndarray, Manifest]:
    """Labelled candidates, the embeddings (Q, H) of their queries, and the manifest."""
    from safetensors.numpy import load_file

    manifest = read_manifest(folder, "candidates")
    arrays = load_file(tensor_file(Path(folder) / FILE))
    query_embeddings = arrays.pop("query_embeddings")
    return TeacherLabels(**arrays, facts=manifest.info), query_embeddings, manifest
