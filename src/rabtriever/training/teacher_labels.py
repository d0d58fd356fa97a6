"""A round's candidates with what the teacher says of them: made by mining, read by distillation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rabtriever.core.artifacts import Manifest, atomic_folder, read_manifest, write_manifest
from rabtriever.core.tensors import tensor_file
from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs
from rabtriever.training.mining import MiningParams, possible_false_negatives

FILE = "candidates.safetensors"


@dataclass(frozen=True)
class TeacherLabels:
    """Candidates of some training queries.

    Attributes:
        query_rows: (Q,) rows of the training queries, in the numbering of `Judgements`.
        candidates: (Q, C) document rows, -1 for none.
        states: (Q, C, H) float16 context query states of the teacher.
        scores: (Q, C) float32 teacher scores, nats.
        grades: (Q, C) known grades; 0 for a negative; -1 where the grade is unknown. That is a missing candidate, a
            possible false negative, or a document that is not the positive of any training query, unless it was judged
            wrong for this one (see Judgements).
        facts: counts and shares worth logging.
    """

    query_rows: np.ndarray
    candidates: np.ndarray
    states: np.ndarray
    scores: np.ndarray
    grades: np.ndarray
    facts: dict[str, float]


def label_candidates(
    reranker: Reranker,
    inputs: TrainingInputs,
    query_rows: np.ndarray,
    candidates: np.ndarray,
    params: MiningParams,
    label: str,
    encoded: EncodedDocuments | None = None,
) -> TeacherLabels:
    """Shows the teacher every candidate once, each document read once for all its queries.

    Args:
        reranker: the teacher at work.
        inputs: the training data, tokenised.
        query_rows: (Q,) rows of the training queries, in the numbering of `Judgements`.
        candidates: (Q, C) document rows, -1 for none.
        params: batch size and margin.
        label: what the progress line says.
        encoded: the embeddings of all documents; None encodes them here.
    """
    filled = np.argwhere(candidates >= 0)  # (P, 2)
    pairs = np.stack([query_rows[filled[:, 0]], candidates[filled[:, 0], filled[:, 1]]], axis=1)
    width = reranker.backbone.width
    states = np.zeros((*candidates.shape, width), dtype=np.float16)
    scores = np.zeros(candidates.shape, dtype=np.float32)
    for part in reranker.annotate(inputs.query_ids, inputs.document_ids, pairs, params.batch_size, label, encoded):
        rows, columns = filled[part.pairs].T
        states[rows, columns] = part.states
        scores[rows, columns] = part.scores
    known = [inputs.judgements.grades[row] for row in query_rows]
    listed = list(zip(query_rows, candidates, strict=True))
    rejected = np.array([np.isin(rows, list(inputs.judgements.rejected[query])) for query, rows in listed])
    eligible = np.array([inputs.judgements.eligible(query, rows) for query, rows in listed])
    unsafe = possible_false_negatives(candidates, scores, known, params.margin) & ~rejected
    grades = np.array(
        [[judged.get(int(row), 0) for row in rows] for judged, rows in zip(known, candidates, strict=True)]
    )
    grades[unsafe | ~eligible] = -1
    facts = {
        "queries": float(len(query_rows)),
        "teacher_calls": float(len(pairs)),
        "positives": float((grades > 0).sum()),
        "possible_false_negatives": float(unsafe.sum()),
    }
    return TeacherLabels(query_rows, candidates, states, scores, grades.astype(np.int64), facts)


def save_candidates(
    folder: str | Path, found: TeacherLabels, query_embeddings: np.ndarray, parents: dict[str, str]
) -> None:
    """Writes a round's annotations and the query states (Q, W) they belong to, as the encoder gives them."""
    from safetensors.numpy import save_file

    with atomic_folder(folder) as target:
        arrays = {
            "query_rows": found.query_rows,
            "query_embeddings": query_embeddings,
            "candidates": found.candidates,
            "states": found.states,
            "scores": found.scores,
            "grades": found.grades,
        }
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, target / FILE)
        write_manifest(target, "candidates", parents, found.facts)


def read_candidates(folder: str | Path) -> tuple[TeacherLabels, np.ndarray, Manifest]:
    """A round's annotations, the query states, and the manifest."""
    from safetensors.numpy import load_file

    manifest = read_manifest(folder, "candidates")
    arrays = load_file(tensor_file(Path(folder) / FILE))
    query_embeddings = arrays.pop("query_embeddings")
    return TeacherLabels(**arrays, facts=manifest.info), query_embeddings, manifest
