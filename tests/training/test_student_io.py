"""What a student's scores are read along, and a student on disk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.models.predictor import Predictor
from rabtriever.training.student_io import answer_direction, load_student, save_student

TEACHER = "a" * 64


def test_a_score_is_read_from_no_to_yes(backbone, prompt, prompt_params, tokenizer):
    """A student ranks the worst document first, or is distilled towards scores that its states cannot give."""
    yes, no = (
        tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (prompt_params.yes, prompt_params.no)
    )
    head = backbone.head_weight.detach()
    assert float((head[yes] - head[no]).abs().max()) > 0.01, "the answers differ at all"
    torch.testing.assert_close(answer_direction(backbone, prompt), head[yes] - head[no])


def test_answers_are_subtracted_in_full(backbone, prompt):
    """The answers of a model in bfloat16 are so near that their difference is rounded away."""
    backbone.model.to(torch.bfloat16)
    head = backbone.head_weight.detach().float()
    found = answer_direction(backbone, prompt)
    assert found.dtype == torch.float32 and torch.equal(found, head[prompt.yes_id] - head[prompt.no_id])


@pytest.mark.parametrize("similarity", [0.0, 6.0])
def test_a_student_comes_back_as_it_was(backbone, prompt, toy, document_ids, tmp_path, similarity):
    """Standardisation, direction or the weight of the cosine is lost, and the index ranks by other scores."""
    backbone.configure(similarity=similarity)
    predictor = Predictor(32, 6, 2, similarity)
    states = torch.from_numpy(backbone.encode(document_ids, 4))
    predictor.standardise(states * 3, states + 1, states * 2)
    direction = torch.randn(32)
    saved = save_student(tmp_path / "student", predictor, direction, {"teacher": TEACHER})
    scorer, manifest = load_student(tmp_path / "student", backbone, prompt, TEACHER)
    assert manifest.hash == saved.hash and manifest.parents == {"teacher": TEACHER}
    queries = scorer.encode(list(toy.queries.values())[:1])
    predicted = predictor(queries[:, None], states)
    wanted = predictor.scores(queries[:, None], states, predicted, direction).detach().numpy()
    np.testing.assert_allclose(scorer.scores(queries, scorer.fold(states)), wanted, atol=1e-4)


def test_a_student_of_another_teacher_is_refused(backbone, prompt, tmp_path):
    """Embeddings of one model are scored by the predictor of another."""
    save_student(tmp_path / "student", Predictor(32, 6, 2, 0.0), torch.randn(32), {"teacher": "b" * 64})
    with pytest.raises(ArtifactMismatchError, match="teacher"):
        load_student(tmp_path / "student", backbone, prompt, TEACHER)
