"""What a student's scores are read along."""

from __future__ import annotations

import pytest
import torch

from rabtriever.training.student_io import answer_direction


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_a_score_is_read_from_no_to_yes(backbone, prompt, prompt_params, tokenizer, weight):
    """A student ranks the worst document first, or is distilled towards scores that its states cannot give."""
    yes, no = (
        tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (prompt_params.yes, prompt_params.no)
    )
    head = backbone.head_weight.detach()
    assert float((head[yes] - head[no]).abs().max()) > 0.01, "the answers differ at all"
    torch.testing.assert_close(answer_direction(backbone, weight, prompt), weight * (head[yes] - head[no]))
