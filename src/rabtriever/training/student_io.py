"""A round's student on disk: the predictor, and the query encoder when it has an adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from rabtriever.core.artifacts import Manifest, atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.core.settings import ParamsError
from rabtriever.core.tensors import restore, tensor_file
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.encoder import Encoder
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_terms import score_weights
from rabtriever.models.predictor import Predictor, PredictorParams, build_predictor
from rabtriever.search.scorer import Scorer
from rabtriever.training.model_io import training_device

KIND = "student"
PREDICTOR = "predictor.safetensors"
ENCODER = "query_encoder"


def answer_direction(reader: Backbone, weight: float, prompt: Prompt) -> torch.Tensor:
    """(H,) w_yes - w_no of the frozen head times the yes/no logit's weight: the direction every score is read along."""
    head = reader.head_weight.detach()
    return weight * (head[prompt.yes_id].float() - head[prompt.no_id].float()).cpu()


def save_student(
    folder: str | Path,
    predictor: Predictor,
    direction: torch.Tensor,
    query_encoder: Backbone | None,
    parents: dict[str, str],
) -> Manifest:
    """Writes a student folder, with the (H,) direction that its scores are read along."""
    from safetensors.torch import save_file

    with atomic_folder(folder) as target:
        state = {**predictor.state_dict(), "direction": direction}
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, target / PREDICTOR)
        if query_encoder is not None:
            query_encoder.cpu().save(target / ENCODER)
        return write_manifest(target, KIND, parents, asdict(predictor.shape))


def check_foldable(folder: str | Path) -> None:
    """Makes sure that an index can be built from a student, without loading it.

    Raises:
        ParamsError: its predictor is of a form that does not fold.
    """
    form = PredictorParams(**read_manifest(folder, KIND, verify=False).info).form
    if form != "foldable":
        raise ParamsError(
            f"{folder} was distilled with predictor.form {form!r}, but an index needs 'foldable': other forms cannot "
            "be folded and exist for comparison in the study; set predictor.form to foldable and run again"
        )


def load_student(folder: Path, teacher: Encoder, prompt: Prompt, teacher_hash: str) -> tuple[Scorer, Manifest]:
    """Opens a student folder as a scorer, after checking that it was distilled from this teacher.

    Args:
        folder: what `save_student` wrote.
        teacher: its encoder.
        prompt: segments of both.
        teacher_hash: of its folder.

    Raises:
        ArtifactMismatchError: the folder is damaged, or another teacher's.
    """
    from safetensors.torch import load_file

    manifest = read_manifest(folder, KIND)
    check_parent(manifest, "teacher", teacher_hash)
    compared = teacher.compared
    predictor = build_predictor(compared.width, PredictorParams(**manifest.info), score_weights(compared).similarity)
    state = load_file(tensor_file(folder / PREDICTOR))
    direction = state.pop("direction")
    restore(predictor, state, folder / PREDICTOR)
    own = folder / ENCODER
    encoder = Encoder(load_backbone(own, device=training_device()), teacher.read) if own.is_dir() else teacher
    return Scorer(encoder, teacher, prompt, predictor.eval(), direction), manifest
