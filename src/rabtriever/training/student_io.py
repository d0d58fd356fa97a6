"""The student on disk: the predictor; its language model is the teacher's."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from rabtriever.core.artifacts import Manifest, atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.core.tensors import restore, tensor_file
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.models.predictor import Predictor
from rabtriever.search.scorer import Scorer

KIND = "student"
PREDICTOR = "predictor.safetensors"


def answer_direction(teacher: Backbone, prompt: Prompt) -> torch.Tensor:
    """(H,) w_yes - w_no of the frozen head: the direction along which the score of a state is read."""
    head = teacher.head_weight.detach()
    return (head[prompt.yes_id].float() - head[prompt.no_id].float()).cpu()


def save_student(
    folder: str | Path, predictor: Predictor, direction: torch.Tensor, parents: dict[str, str]
) -> Manifest:
    """Writes a student folder, with the (H,) direction that its scores are read along."""
    from safetensors.torch import save_file

    with atomic_folder(folder) as target:
        state = {**predictor.state_dict(), "direction": direction}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, target / PREDICTOR)
        shape = {**asdict(predictor.shape), "similarity": predictor.similarity}
        return write_manifest(target, KIND, parents, shape)


def load_student(folder: Path, encoder: Backbone, prompt: Prompt, encoder_hash: str) -> tuple[Scorer, Manifest]:
    """Opens a student folder as a scorer, after checking that it was distilled over the embeddings of this bi-encoder.

    Args:
        folder: what `save_student` wrote.
        encoder: the bi-encoder, which encodes queries and documents.
        prompt: segments of both.
        encoder_hash: of its folder.

    Raises:
        ArtifactMismatchError: the folder is damaged, or another bi-encoder's.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(folder, KIND)
    check_parent(manifest, "biencoder", encoder_hash)
    predictor = Predictor(encoder.width, **manifest.info)
    state = load_file(tensor_file(folder / PREDICTOR))
    direction = state.pop("direction")
    restore(predictor, state, folder / PREDICTOR)
    return Scorer(encoder, prompt, predictor.eval(), direction), manifest
