"""What every Lightning module of this room shares: batches as a pure function of the step, the optimiser, and the fit.

Batches are drawn inside `training_step` from (seed, step, rank), so a run that resumes from a checkpoint sees exactly
the batches that the uninterrupted run would have seen.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import re
import signal
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException

from rabtriever.core.code import package_identity
from rabtriever.core.progress import Progress
from rabtriever.lm.backbone import Backbone
from rabtriever.training.optimizers import BETAS, MuonAdamW

CHECKPOINT_SECONDS = 30
WARMUP_SHARE = 0.06
WEIGHT_DECAY = 0.1  # of a language model
POINTS = 50  # of a metric that a long fit logs; each takes the store some milliseconds


class StepModule(pl.LightningModule):
    """A Lightning module that draws its own batches.

    Args:
        seed: first part of the seed of every batch.
        steps: length of the schedule in optimiser steps.
        learning_rate: peak learning rate; linear warm-up, cosine decay to a twentieth.
        weight_decay: AdamW's decoupled weight decay, on matrices only.
    """

    def __init__(self, seed: int, steps: int, learning_rate: float, weight_decay: float) -> None:
        super().__init__()
        self.seed, self.steps = seed, steps
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The terms of one step's loss, already weighted; their sum is minimised."""
        raise TypeError(f"{type(self).__name__} must define losses")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Draws the batch of the current step and returns the summed loss."""
        draw = (self.seed, self.global_step, self.global_rank)
        torch.manual_seed(int(np.random.default_rng((*draw, 1)).integers(2**62)))  # dropout, where a backbone has it
        terms = self.losses(np.random.default_rng(draw))
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            values = {name: float(term.detach()) for name, term in terms.items()}
            raise FloatingPointError(
                f"loss is {float(total.detach())} at step {self.global_step} ({values}): lower the learning rate"
            )
        self.log_dict({f"loss_{name}": term.detach() for name, term in terms.items()} | {"loss": total.detach()})
        return total

    def _frozen(self) -> set[str]:
        """Names of the weights that training does not change."""
        return {name for name, weight in self.named_parameters(remove_duplicate=False) if not weight.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves out what is frozen: beside adapters it is the whole language model, written every half minute."""
        frozen = self._frozen()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k not in frozen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Puts it back, as this module was given it."""
        state = self.state_dict()
        checkpoint["state_dict"] |= {name: state[name] for name in self._frozen()}

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at a step of this module's schedule."""
        return rate_at(step, self.steps)

    def muon_matrices(self) -> list[torch.nn.Parameter]:
        """Matrices that Muon trains at `learning_rate`; AdamW trains the rest."""
        return []

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW (and Muon) over the trainable parameters, with a warm-up and cosine decay; vectors are not decayed."""
        matrices = [p for p in self.muon_matrices() if p.requires_grad]
        apart = {id(p) for p in matrices}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": self.weight_decay, "lr": self.learning_rate},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0, "lr": self.learning_rate},
        ]
        optimizer: torch.optim.Optimizer
        if matrices:
            optimizer = MuonAdamW(matrices, groups, self.learning_rate, self.weight_decay)
        else:
            optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=BETAS)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class LanguageModelModule(StepModule):
    """A StepModule that trains a language model with the numbers of its section of params.yaml.

    Args:
        backbone: trained in place.
        params: has `steps`, `optimizer` and `learning_rate`.
        seed: seed of the batches.
    """

    def __init__(self, backbone: Backbone, params: Any, seed: int) -> None:
        super().__init__(seed, params.steps, params.learning_rate, WEIGHT_DECAY)
        self.backbone, self.params = backbone, params

    def muon_matrices(self) -> list[torch.nn.Parameter]:
        """The layers' matrices, with `optimizer: muon`."""
        return self.backbone.hidden_matrices() if self.params.optimizer == "muon" else []


def rate_at(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine from 1 to 0.05.

    >>> round(rate_at(100, 100), 2)
    0.05
    """
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress))


class _ProgressLine(pl.Callback):
    def __init__(self, label: str) -> None:
        self.label = label
        self.progress: Progress | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress = Progress(self.label, trainer.max_steps, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        if self.progress:
            self.progress.advance(f"loss {float(trainer.callback_metrics['loss']):.3f}")

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.progress:
            self.progress.close(f"loss {float(trainer.callback_metrics['loss']):.3f}")


class _AtEnd(pl.Callback):
    """Writes the finished weights as the checkpoint that a later fit resumes from, with nothing left to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # said, or Lightning tells that it was not


def checkpoint_folder(root: str | Path, stage: str, inputs: dict[str, Any]) -> Path:
    """Scratch folder of a stage for exactly these inputs and this code; a run with others never resumes from it."""
    given = json.dumps({**inputs, "code": _code_hash()}, sort_keys=True, default=str)
    return Path(root) / stage / hashlib.sha256(given.encode()).hexdigest()[:16]


@functools.cache
def _code_hash() -> str:
    """Of this package: half a training by one loss and half by another is a result of neither."""
    return package_identity()


def hardware() -> dict[str, Any]:
    """Where a Trainer runs: on the CPU or the GPU in this process, on several GPUs in a process for each of them.

    Lightning's own choice for several GPUs, DDP, would start the whole command again on each, and so a whole flow with
    its locks and its folders. Processes that are spawned for the fit alone give the trained weights back to this one.
    A step may leave weights without a gradient (an LM head, a term of weight zero), which DDP has to be told. What a
    cluster's job says of its processes (SLURM) is not asked: the one that runs this is none of several.
    """
    count, here = torch.cuda.device_count(), {"plugins": [LightningEnvironment()]}
    if count < 2:
        return {"accelerator": "auto", "devices": 1, **here}
    return {"accelerator": "gpu", "devices": count, "strategy": "ddp_spawn_find_unused_parameters_true", **here}


def fit(module: StepModule, label: str, checkpoints: Path | None = None, logger: Any = None) -> None:
    """Trains a module for its steps, on all GPUs there are, resuming from `checkpoints` after a kill.

    Of several GPUs each draws batches of its own and gradients are averaged, so a step sees as many times the queries.

    Args:
        module: what to train, in place.
        label: what the progress line says.
        checkpoints: scratch folder, for the caller to remove once it has saved what it makes of the module: until
            then another fit of this module finds there that nothing is left to do. No checkpoints when None.
        logger: a Lightning logger, or None.

    Raises:
        FloatingPointError: a loss that is not finite.
        SystemExit: with status 143, when the process is told to end (SIGTERM).
    """
    if module.steps == 0:
        module.eval()
        return
    _quiet()
    last = checkpoints / "step.ckpt" if checkpoints is not None else None
    resume = last if last is not None and last.is_file() else None
    if resume:
        print(f"{label}: resuming from {resume}", flush=True)
    trainer = pl.Trainer(
        max_steps=module.steps,
        max_epochs=-1,
        **hardware(),
        precision="32-true",  # a backbone says itself which of its parts are computed in less
        logger=logger if logger is not None else False,
        callbacks=[_ProgressLine(label), *(_checkpoints(last) if last is not None else [])],
        enable_checkpointing=checkpoints is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        log_every_n_steps=max(10, module.steps // POINTS),
        deterministic="warn",
    )
    module.train()
    homes = _devices(module)
    _run(trainer, module, resume)
    module.eval()
    for part, device in homes:
        part.to(device)


def _run(trainer: pl.Trainer, module: StepModule, resume: Path | None) -> None:
    try:
        trainer.fit(module, _Steps(module.steps), ckpt_path=resume, weights_only=False if resume else None)
    except SIGTERMException as error:  # Lightning leaves the exit status at 0, and a killed stage would pass for done
        raise SystemExit(128 + signal.SIGTERM) from error
    except ProcessRaisedException as error:  # one of several, with its traceback as the message
        if told := re.search(r"^FloatingPointError: (.*)$", str(error), re.MULTILINE):
            raise FloatingPointError(told[1]) from error
        raise
    finally:
        if trainer.strategy.launcher is not None:  # else what was started would train on to its end
            # not SIGTERM: Lightning answers it with a broadcast, which a process inside another one waits in for ever
            trainer.strategy.launcher.kill(signal.SIGKILL)


def _checkpoints(last: Path) -> list[pl.Callback]:
    """What writes a checkpoint from time to time and at the end, each over the one before."""
    interval = timedelta(seconds=CHECKPOINT_SECONDS)
    from_time_to_time = pl.callbacks.ModelCheckpoint(
        dirpath=last.parent, filename=last.stem, train_time_interval=interval, enable_version_counter=False
    )
    return [from_time_to_time, _AtEnd(last)]


def _devices(module: torch.nn.Module) -> list[tuple[torch.nn.Module, torch.device]]:
    """Where the parts of a module lie; Lightning leaves all of them on the CPU, whatever they are needed for next."""
    first = ((part, next(part.parameters(), None)) for part in module.children())
    return [(part, weight.device) for part, weight in first if weight is not None]


class _Steps:
    """An iterable of step numbers; the batches themselves are drawn by the module."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __iter__(self) -> Iterator[int]:
        yield from range(self.steps)

    def __len__(self) -> int:
        return self.steps


def _quiet() -> None:
    """Hardware banners and hints about workers say nothing to the reader of a pipeline's log."""
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
