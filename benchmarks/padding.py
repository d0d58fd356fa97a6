"""Prints how long a training step takes when its texts are read in groups of like length, and when they are not.

`python benchmarks/padding.py FOLDER ...` takes folders with params.yaml, data/prepared and models/biencoder: this
one after `make run`, or trials of a study, such as `.cache/study/cpu/metatool-7`. Both ways see the same batches on one
thread, in turn; compare the ratios, times are of one machine.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when the libraries below are imported

import argparse
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from rabtriever.core.settings import load_params
from rabtriever.lm import padding
from rabtriever.lm.prompt import PromptParams
from rabtriever.training.contrastive import BiencoderParams, ContrastiveModule, mine_with_cosine
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import open_model
from rabtriever.training.teacher import TeacherModule, TeacherParams
from rabtriever.training.trainer import StepModule

STEPS = 8
WAYS = {"in groups": padding.CPU_TOKENS, "at once": 10**9}


def main() -> None:
    """One table: a row for each step of each folder, milliseconds of both ways and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", default=["."], help="each with params.yaml, data/prepared, models")
    folders = parser.parse_args().folders
    torch.set_num_threads(1)
    print(f"forward and backward of one step, mean of {STEPS}, one thread\n")
    print("| | step of |" + "".join(f" ms, {way} |" for way in WAYS) + " ratio |\n|---|---|" + "---:|" * 3)
    for folder in folders:
        for name, module in _modules(Path(folder)).items():
            times = _timed(module)
            groups, once = (1000 * times[way] for way in WAYS)
            print(
                f"| {Path(folder).resolve().name} | {name} | {groups:.0f} | {once:.0f} | {once / groups:.2f} |",
                flush=True,
            )


def _modules(folder: Path) -> dict[str, StepModule]:
    """The bi-encoder's and the teacher's training, both from the bi-encoder."""
    dataset, data = prepared_data(folder / "data/prepared")
    settings = folder / "params.yaml"
    prompt = load_params(PromptParams, "prompt", settings)
    contrastive = load_params(BiencoderParams, "train_biencoder", settings)
    reading = load_params(TeacherParams, "train_teacher", settings)
    backbone, built, _ = open_model(folder / "models/biencoder", "biencoder", prompt, data)
    inputs = training_inputs(dataset, built)
    facts = inputs.judgements, inputs.query_ids, inputs.document_ids
    mined = mine_with_cosine(backbone, *facts)
    biencoder = ContrastiveModule(backbone, *facts, contrastive, seed=0)
    biencoder.mine = lambda: mined  # type: ignore[method-assign]
    return {"bi-encoder": biencoder, "teacher": TeacherModule(backbone, built, *facts, mined, reading, seed=0)}


def _timed(module: StepModule) -> dict[str, float]:
    """Seconds of a step, a mean over the same batches."""
    module.train()
    spent = dict.fromkeys(WAYS, 0.0)
    for step in range(STEPS + 1):
        for way, price in WAYS.items():
            with mock.patch.object(padding, "CPU_TOKENS", price):
                start = time.perf_counter()
                torch.stack(list(module.losses(np.random.default_rng(step)).values())).sum().backward()
                module.zero_grad()
                spent[way] += (time.perf_counter() - start) * (step > 0)  # the first one warms up
    return {way: seconds / STEPS for way, seconds in spent.items()}


if __name__ == "__main__":
    main()
