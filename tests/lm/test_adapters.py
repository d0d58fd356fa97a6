"""Adapters: added without a change, trained, merged into the weights, and added again."""

import numpy as np
import pytest
import torch

from rabtriever.lm.adapters import add_lora, merge_lora
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.padding import pad
from tests.language_models import small_bert, small_llama


@pytest.mark.parametrize("family", ["qwen2", "llama", "bert"])
def test_lora_round_trip(make_backbone, tokenizer, family, query_ids, tmp_path):
    """A fresh adapter changes the model, the merged one scores otherwise than the trained one, or cannot be loaded."""
    build = {"llama": small_llama, "bert": small_bert}
    model = make_backbone() if family == "qwen2" else Backbone(build[family](len(tokenizer)), tokenizer).eval()
    names = [name for name, _ in model.model.named_parameters()]
    plain = model.encode(query_ids, 8)
    adapters = add_lora(model, 2)
    np.testing.assert_allclose(model.encode(query_ids, 8), plain, atol=1e-6)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable and all("lora" in name for name in trainable)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        model.embed(*pad(query_ids)).pow(3).mean().backward()
        optimizer.step()
    trained = model.encode(query_ids, 8)
    assert np.abs(trained - plain).max() > 0.01
    merge_lora(model, adapters)
    np.testing.assert_allclose(model.encode(query_ids, 8), trained, atol=2e-5)
    assert [name for name, _ in model.model.named_parameters()] == names
    assert all(p.requires_grad for p in model.parameters())
    model.save(tmp_path / "merged")
    np.testing.assert_allclose(load_backbone(tmp_path / "merged").encode(query_ids, 8), trained, atol=2e-5)


def test_lora_twice(make_backbone, query_ids):
    """The teacher cannot be adapted, because the bi-encoder it starts from was trained with adapters too."""
    model = make_backbone()
    merge_lora(model, add_lora(model, 2))
    before = model.encode(query_ids, 8)
    add_lora(model, 3)
    np.testing.assert_allclose(model.encode(query_ids, 8), before, atol=1e-6)
    assert any(p.requires_grad for p in model.parameters())
