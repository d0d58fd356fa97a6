"""LoRA adapters through peft, added before training and merged into the weights after it."""

from __future__ import annotations

from rabtriever.backbone import Backbone


def add_lora(backbone: Backbone, rank: int) -> Backbone:
    """Freezes a backbone and adds trainable adapters of a rank to all its linear layers but the head.

    The adapters are injected into the model itself, so that it keeps its class and its attributes.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for parameter in backbone.model.parameters():
        parameter.requires_grad = False
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none")
    inject_adapter_in_model(config, backbone.decoder)
    return backbone


def merge_lora(backbone: Backbone) -> Backbone:
    """Writes the adapters into the weights and takes them off, which leaves an ordinary model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(backbone.model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(backbone.model.get_submodule(parent), leaf, module.get_base_layer())
    if hasattr(backbone.decoder, "peft_config"):
        del backbone.decoder.peft_config
    for parameter in backbone.model.parameters():
        parameter.requires_grad = True
    return backbone
