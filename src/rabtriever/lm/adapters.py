"""How a backbone's weights are trained: all of them or LoRA adapters, in float32 whatever they are stored as.

Adapters come from peft, are added before training and merged into the weights after it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.gradient_checkpointing import checkpointed

if TYPE_CHECKING:
    from peft import LoraModel


@contextlib.contextmanager
def tuning(backbone: Backbone, rank: int, gradient_checkpointing: bool = False) -> Iterator[None]:
    """A backbone made ready to be trained in place, and afterwards an ordinary model of the dtype it had.

    After an error it is left as it was being trained, adapters and all: throw it away.

    Args:
        backbone: what is trained inside; build the Lightning module there too.
        rank: of the adapters; 0 trains every weight.
        gradient_checkpointing: as in `checkpointed`.
    """
    stored = [] if rank else [(weight, weight.dtype) for weight in backbone.parameters()]
    for weight, _ in stored:  # one by one: a model's buffers have a dtype of their own
        weight.data = weight.data.float()
    adapters = add_lora(backbone, rank) if rank else None
    with checkpointed(backbone) if gradient_checkpointing else contextlib.nullcontext():
        yield
    if adapters is not None:
        merge_lora(backbone, adapters)
    for weight, dtype in stored:
        weight.data = weight.data.to(dtype)


def add_lora(backbone: Backbone, rank: int) -> LoraModel:
    """Freezes a backbone and adds trainable adapters of a rank to all its linear layers but the head.

    The adapters are injected into the model itself, so that it keeps its class and its attributes. They are float32
    whatever the model is: a step of a usual learning rate is lost in the 8 bits of a bfloat16.

    Returns:
        What `merge_lora` takes the adapters off by.
    """
    from peft import LoraConfig, LoraModel

    for parameter in backbone.model.parameters():
        parameter.requires_grad = False
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", bias="none")
    adapters = LoraModel(backbone.decoder, config, "default")
    for parameter in backbone.model.parameters():
        if parameter.requires_grad:  # peft makes them of the model's dtype
            parameter.data = parameter.data.float()
    return adapters


def merge_lora(backbone: Backbone, adapters: LoraModel) -> None:
    """Writes the adapters into the weights and takes them off, which leaves an ordinary model of the same dtype."""
    adapters.merge_and_unload()
    for parameter in backbone.model.parameters():
        parameter.requires_grad = True
