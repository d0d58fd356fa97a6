"""The bi-encoder's part of a score: what query and document say apart, the same in teacher and student.

    bi_encoder_score(q, d) = similarity . <ĥ_q, vector_d> + bias_d
    vector_d = ĥ_d + (memory / similarity) m_d
    bias_d = prior . log(1 + n_d) - attraction . a_d

ĥ are unit states of texts encoded alone. The other terms are what the training queries tell about a document: m_d is
where the queries judged for it lie (the direction of their sum, by grade, less the mean of all training queries, shrunk
where they are few), n_d how many they are, and a_d = T log mean exp(<ĥ_q', ĥ_d> / T) over training queries (a sample of
them where they are many) how near it is to queries of any kind. A document that is near to all of them is a hub, and
its nearness says little (inverted softmax, Smith et al. 2017, arXiv 1702.03859). None of it costs anything at search:
vectors and bias fold into what the index keeps anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.core.tensors import tensor_file
from rabtriever.core.vectors import unit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.encoder import split_embeddings

MEMORY = "memory.safetensors"
BANK = 4096  # training queries that the attraction is measured with
SHRINKAGE = 5.0  # judgements at which a document's memory has half its weight
TEMPERATURE = 0.05  # of the attraction
BLOCK_CELLS = 8_000_000  # cosines held at once


class ScoreWeights(NamedTuple):
    """Weights of the terms of the teacher's score, in nats; without any but the yes/no logit it is the paper's."""

    yes_no_logit: float = 1.0
    similarity: float = 0.0
    memory: float = 0.0
    attraction: float = 0.0
    prior: float = 0.0

    @property
    def need_memory(self) -> bool:
        """Whether any term is of the training queries."""
        return self.memory > 0 or self.attraction > 0 or self.prior > 0


def score_weights(backbone: Backbone) -> ScoreWeights:
    """The weights that a teacher's backbone was saved with; those of the paper where it has none."""
    found = {name: float(backbone.settings[name]) for name in ScoreWeights._fields if name in backbone.settings}
    return ScoreWeights(**found)


class QueryMemory(NamedTuple):
    """What is kept of the training queries.

    Attributes:
        bank: (B, H) unit states of a sample of them.
        rows: (J,) rows of the documents that any of them is judged for.
        vectors: (J, H) the memory m of those documents; that of the others is zero.
        counts: (J,) training queries judged for each.
    """

    bank: np.ndarray
    rows: np.ndarray
    vectors: np.ndarray
    counts: np.ndarray

    def moved(self, place: Sequence[int]) -> QueryMemory:
        """What is kept of the training queries, with document rows of another corpus.

        Args:
            place: of each row of this one the row there; documents of -1 are left out.
        """
        rows = np.asarray(place, dtype=np.int64)[self.rows]
        kept = rows >= 0
        return QueryMemory(self.bank, rows[kept], self.vectors[kept], self.counts[kept])


class EncodedDocuments(NamedTuple):
    """All that scores are computed from on the document side.

    Attributes:
        states: (N, H) what the predictor reads.
        document_vectors: (N, H) what queries are compared with.
        document_bias: (N,).
    """

    states: Tensor
    document_vectors: Tensor
    document_bias: Tensor

    def at(self, rows: Tensor | slice | np.ndarray) -> EncodedDocuments:
        """Some of the documents; an index of any shape gives parts of that shape."""
        return EncodedDocuments(*(part[rows] for part in self))

    def to(self, device: torch.device | str) -> EncodedDocuments:
        """All documents on a device."""
        return EncodedDocuments(*(part.to(device) for part in self))


class TermFeatures(NamedTuple):
    """The terms without their weights: memory vectors (N, H), attraction (N,), prior (N,)."""

    memory: np.ndarray
    attraction: np.ndarray
    prior: np.ndarray


def remember(query_embeddings: np.ndarray, grades: Sequence[Mapping[int, int]], seed: int = 0) -> QueryMemory:
    """The memory of training queries.

    Args:
        query_embeddings: (Q, H) states of the queries alone.
        grades: for each, document row -> grade; grades weigh a document's queries.
        seed: draws the bank where there are more than `BANK` queries.
    """
    queries = unit(query_embeddings)
    judged = [(row, query, grade) for query, known in enumerate(grades) for row, grade in known.items() if grade > 0]
    rows, place = np.unique(np.array([row for row, _, _ in judged], dtype=np.int64), return_inverse=True)
    sums = np.zeros((len(rows), queries.shape[1]), dtype=np.float32)
    counts = np.zeros(len(rows), dtype=np.float32)
    if judged:
        asked = np.array([query for _, query, _ in judged])
        weight = np.array([grade for _, _, grade in judged], dtype=np.float32)
        np.add.at(sums, place, weight[:, None] * queries[asked])
        np.add.at(counts, place, 1.0)
    share = counts / (counts + SHRINKAGE)
    vectors = share[:, None] * (unit(sums) - queries.mean(0))
    drawn = np.random.default_rng(seed).permutation(len(queries))[:BANK]
    return QueryMemory(queries[np.sort(drawn)], rows, vectors.astype(np.float32), counts)


def term_features(document_embeddings: np.ndarray, memory: QueryMemory) -> TermFeatures:
    """The terms of (N, H) documents that a memory was made for."""
    documents = unit(document_embeddings)
    vectors, counts = np.zeros_like(documents), np.zeros(len(documents), dtype=np.float32)
    vectors[memory.rows], counts[memory.rows] = memory.vectors, memory.counts
    attraction = np.empty(len(documents), dtype=np.float32)
    block = max(1, BLOCK_CELLS // max(1, len(memory.bank)))
    for start in range(0, len(documents), block):
        near = torch.from_numpy(documents[start : start + block] @ memory.bank.T) / TEMPERATURE
        attraction[start : start + block] = TEMPERATURE * (torch.logsumexp(near, 1) - np.log(near.shape[1])).numpy()
    return TermFeatures(vectors, attraction, np.log1p(counts))


def encoded_documents(
    document_embeddings: np.ndarray | Tensor,
    weights: ScoreWeights,
    memory: QueryMemory | None = None,
    width: int | None = None,
) -> EncodedDocuments:
    """What a score needs of documents: from their embeddings, and from what the training queries tell of them.

    Without a memory, or a weight of any of its terms, document_vectors are unit states and document_bias zero.

    Args:
        document_embeddings: (N, W) as an `Encoder` gives them.
        weights: of the terms.
        memory: of the training queries, from the embeddings that are compared.
        width: size of one embedding, H; by default W.

    Raises:
        ValueError: terms of the training queries have weights, but `memory` is None or the similarity has no weight.
    """
    states = torch.as_tensor(
        np.array(document_embeddings) if isinstance(document_embeddings, np.ndarray) else document_embeddings
    )
    compared, read = split_embeddings(states, width or states.shape[1])
    document_vectors, document_bias = F.normalize(compared, dim=-1), torch.zeros(len(states))
    if weights.need_memory:
        if memory is None or weights.similarity <= 0:
            raise ValueError(f"the score has terms of the training queries ({weights}), but there is no memory of them")
        features = term_features(compared.numpy(), memory)
        document_vectors = document_vectors + weights.memory / weights.similarity * torch.from_numpy(features.memory)
        document_bias = torch.from_numpy(weights.prior * features.prior - weights.attraction * features.attraction)
    return EncodedDocuments(read, document_vectors, document_bias.to(states.dtype))


def bi_encoder_scores(query_embeddings: np.ndarray, documents: EncodedDocuments, similarity: float) -> np.ndarray:
    """(Q, N) the bi-encoder's part of the score of every pair, from the queries' embeddings (Q, W)."""
    compared = split_embeddings(query_embeddings, documents.document_vectors.shape[1]).compared
    return similarity * unit(compared) @ documents.document_vectors.numpy().T + documents.document_bias.numpy()


def save_memory(path: Path, memory: QueryMemory) -> None:
    """Writes a memory of training queries as safetensors."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(part) for name, part in memory._asdict().items()}, path)


def read_memory(path: Path) -> QueryMemory | None:
    """The memory at a path; None where there is none."""
    from safetensors.numpy import load_file

    return QueryMemory(**load_file(tensor_file(path))) if path.is_file() else None
