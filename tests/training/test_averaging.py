"""Averages of weights: what they are, and what may not be averaged."""

import pytest
import torch

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.training.averaging import average_weights
from tests.language_models import small_bert


def weights(backbone: Backbone) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in backbone.model.named_parameters()}


@pytest.mark.parametrize("opened", [False, True])
def test_every_weight_is_the_weighted_mean(make_backbone, tmp_path, opened):
    """Tied or skipped weights would be counted twice or not at all, and the model would be neither of the two."""
    models = [make_backbone(seed) for seed in range(2)]
    before = [weights(model) for model in models]
    models[1].save(tmp_path / "other")
    average_weights(models[0], models[1] if opened else tmp_path / "other", 0.3)
    for name, found in weights(models[0]).items():
        expected = 0.7 * before[0][name] + 0.3 * before[1][name]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert models[0].head_weight.data_ptr() == models[0].model.get_output_embeddings().weight.data_ptr()


def test_a_share_of_zero_is_not_read(make_backbone, tmp_path):
    """Whoever switches averaging off must not need the other model."""
    model = make_backbone()
    before = weights(model)
    average_weights(model, tmp_path / "missing", 0.0)
    assert all(torch.equal(before[name], weight) for name, weight in weights(model).items())


def test_stored_precision_is_kept(make_backbone, tmp_path):
    """A model that is bfloat16 on disk would double in size."""
    model = make_backbone(0)
    make_backbone(1).save(tmp_path / "other")
    model.model.to(torch.bfloat16)
    average_weights(model, tmp_path / "other", 0.5)
    assert {weight.dtype for weight in model.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("share", [-0.2, 1.2])
def test_shares_that_are_none_are_refused(backbone, tmp_path, share):
    """One of the two models would enter with its sign turned."""
    with pytest.raises(ValueError, match=rf"is {share}: expected 0 to 1"):
        average_weights(backbone, tmp_path / "a", share)


def test_models_of_other_shapes_are_refused(backbone, tokenizer, tmp_path):
    """Their weights do not correspond."""
    other = Backbone(small_bert(len(tokenizer)), tokenizer)
    other.save(tmp_path / "bert")
    assert load_backbone(tmp_path / "bert").width
    with pytest.raises(ValueError, match="a model of another shape"):
        average_weights(backbone, tmp_path / "bert", 0.5)
