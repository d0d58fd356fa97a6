"""A Hypencoder (arXiv 2502.05364): each query makes a small network, which scores the vector of a document.

As in the student, the teacher that encodes both sides is frozen, its scores of the same candidates are the target, and
its cosine is part of the score. The two differ only in how query and document meet: here in the made network, there in
the predictor. A document keeps one vector: SIZE reduced dimensions, and its unit embedding for the cosine.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rabtriever.core.artifacts import atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.core.seeding import seed_torch
from rabtriever.core.settings import load_sections
from rabtriever.core.stages import Paths
from rabtriever.models.predictor import spread
from rabtriever.models.reranker import similarity_of
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import prepared_data
from rabtriever.training.losses import reverse_kl
from rabtriever.training.model_io import open_model
from rabtriever.training.stages.distill_student import Sections
from rabtriever.training.student import WEIGHT_DECAY, StudentParams
from rabtriever.training.teacher_labels import TeacherLabels, read_candidates
from rabtriever.training.trainer import StepModule, fit

SIZE, LAYERS, HIDDEN = 64, 2, 128  # of the made network, and of the one that makes it
KIND, FILE = "hypencoder", "hypencoder.safetensors"


class Hypencoder(nn.Module):
    """The network that makes a network of each query, and the reduction of documents.

    Args:
        width: embedding size, H.
        similarity: the teacher's weight of the cosine.
    """

    def __init__(self, width: int, similarity: float) -> None:
        super().__init__()
        self.similarity = similarity
        self.reduce = nn.Linear(width, SIZE)
        self.make = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, LAYERS * SIZE * SIZE + SIZE))
        for name in ("query", "document"):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_scale", torch.ones(width))
        with torch.no_grad():
            self.make[2].weight.mul_(0.1)  # all queries start with nearly the same network
            self.make[2].bias[: LAYERS * SIZE * SIZE].normal_(std=(2 / SIZE) ** 0.5)
            self.make[2].bias[-SIZE:].zero_()

    @torch.no_grad()
    def standardise(self, queries: Tensor, documents: Tensor) -> None:
        """Sets the standardisation from embeddings (., H) of queries and documents."""
        for name, sample in (("query", queries), ("document", documents)):
            getattr(self, f"{name}_mean").copy_(sample.mean(0))
            getattr(self, f"{name}_scale").copy_(spread(sample))

    def forward(self, queries: Tensor, documents: Tensor) -> Tensor:
        """Scores (B, C), nats, of embeddings of queries (B, H) and of their documents (B, C, H)."""
        made = self.make((queries - self.query_mean) / self.query_scale)
        *layers, last = made.split([*[SIZE * SIZE] * LAYERS, SIZE], dim=-1)
        found = self.reduce((documents - self.document_mean) / self.document_scale)  # (B, C, SIZE)
        for layer in layers:
            found = found + torch.relu(found @ layer.unflatten(-1, (SIZE, SIZE)))
        cosine = F.cosine_similarity(queries[:, None], documents, dim=-1)
        return (found @ last[..., None]).squeeze(-1) / SIZE**0.5 + self.similarity * cosine


class HypencoderModule(StepModule):
    """Trains a Hypencoder on the teacher's scores by the student's listwise term, with the student's budget.

    Args:
        model: trained in place.
        labels: candidates with the teacher's scores.
        embeddings: of their queries (Q, H), and of all documents (N, H).
        params: of the student.
        seed: seed of the batches.
    """

    def __init__(
        self,
        model: Hypencoder,
        labels: TeacherLabels,
        embeddings: tuple[Tensor, Tensor],
        params: StudentParams,
        seed: int,
    ) -> None:
        super().__init__(seed, params.steps, params.learning_rate, WEIGHT_DECAY)
        self.model, self.labels, self.params = model, labels, params
        self.queries, self.documents = embeddings

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """KL(student || teacher) over the candidates of a batch of queries."""
        count = len(self.queries)
        rows = rng.choice(count, size=min(self.params.queries, count), replace=False)
        candidates = torch.from_numpy(self.labels.candidates[rows])
        documents = self.documents[candidates.clamp(min=0)].to(self.device)
        scores = self.model(self.queries[torch.from_numpy(rows)].to(self.device), documents)
        wanted = torch.from_numpy(self.labels.scores[rows]).to(self.device)
        return {"listwise": reverse_kl(scores, wanted, (candidates >= 0).to(self.device))}


def train_hypencoder(paths: Paths, target: str) -> None:
    """Trains one on the candidates of the stage mine, and writes it to a folder."""
    from safetensors.torch import save_file

    sections = load_sections(Sections, paths.params)
    dataset, data = prepared_data(paths.prepared)
    teacher, _, manifest = open_model(paths.teacher, "teacher", sections.prompt, data)
    labels, asked, source = read_candidates(paths.candidates)
    check_parent(source, "teacher", manifest.hash)
    queries = torch.from_numpy(asked)
    documents = torch.from_numpy(np.array(read_embeddings(paths.embeddings, len(dataset.corpus))))
    seed_torch(sections.random.seed)
    model = Hypencoder(teacher.width, similarity_of(teacher))
    model.standardise(queries, documents)
    fit(HypencoderModule(model, labels, (queries, documents), sections.distill, sections.random.seed), KIND)
    with atomic_folder(target) as folder:
        save_file(model.state_dict(), folder / FILE)
        facts = {"similarity": model.similarity}
        write_manifest(folder, KIND, {"data": data, "teacher": manifest.hash, "candidates": source.hash}, facts)


def load_hypencoder(folder: str, width: int) -> Hypencoder:
    """Reads what `train_hypencoder` wrote."""
    from safetensors.torch import load_file

    model = Hypencoder(width, read_manifest(folder, KIND).info["similarity"])
    model.load_state_dict(load_file(f"{folder}/{FILE}"))
    return model.eval()
