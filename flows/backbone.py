"""Stage backbone: the language model everything starts from, built and warmed up, or taken from a source.

Run as `python -m flows.backbone`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from prefect import flow

from flows.common import BACKBONE, CHECKPOINTS, PARAMS, PREPARED, main
from rabtriever.artifacts import content_hash
from rabtriever.backbone import (
    Backbone,
    SmallModelParams,
    build_small_model,
    build_tokenizer,
    default_device,
    load_backbone,
)
from rabtriever.contrastive import ContrastiveModule, ContrastiveParams
from rabtriever.inputs import prepared_data, save_model, training_inputs
from rabtriever.lora import tuning
from rabtriever.params import load_params
from rabtriever.prompt import Prompt, PromptParams, check_templates, template_texts
from rabtriever.records import Dataset
from rabtriever.reranker import check_reading
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.sources import resolve_source
from rabtriever.supervision import Supervision
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit


@dataclass(frozen=True)
class BackboneParams:
    """Section `backbone` of params.yaml.

    Attributes:
        source: folder or hub name of a causal language model; empty builds the small one from scratch.
        revision: commit of a hub model; empty for a folder.
        dtype: type its weights are loaded as, and stay; what is trained of them is trained in float32.
        pooling: state of a segment encoded alone: that of its last token, or the mean over its tokens.
        attention: what a token sees of its own segment: what is before it, or, as an encoder was trained, all of it.
    """

    source: str
    revision: str
    dtype: Literal["float32", "bfloat16", "float16"]
    pooling: Literal["last", "mean"]
    attention: Literal["causal", "segment"]


@flow(name="backbone")
def backbone() -> str:
    """The hash of models/backbone, after building or taking the model and warming it up on the training pairs."""
    params = load_params(BackboneParams, "backbone", PARAMS)
    small = load_params(SmallModelParams, "small_model", PARAMS)
    warmup = load_params(ContrastiveParams, "warmup", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    check_templates(prompt_params)
    dataset, data = prepared_data(PREPARED)
    with stage_run("backbone", {"backbone": params, "small_model": small, "warmup": warmup}) as run:
        seed_torch(seed)  # a part that a pretrained model lacks is drawn at random
        source = resolve_source(params.source) if params.source else ""
        model = _take(source, params) if source else _build(dataset, small, prompt_params, seed)
        model.configure(pooling=params.pooling, attention=params.attention)
        prompt = Prompt(model.tokenizer, prompt_params, model.context)
        if params.source:
            check_reading(model, prompt)
        inputs = training_inputs(dataset, prompt)
        keys = {"data": data, "seed": seed, **asdict(params), **asdict(small), **asdict(warmup), "prompt": prompt.hash}
        keys["weights"] = content_hash(source) if Path(source).is_dir() and source else ""  # others may be put there
        checkpoints = checkpoint_folder(CHECKPOINTS, "backbone", keys)
        with tuning(model, warmup.lora_rank, warmup.gradient_checkpointing):
            module = ContrastiveModule(model, inputs.supervision, inputs.query_ids, inputs.document_ids, warmup, seed)
            fit(module, "backbone", checkpoints, run.lightning_logger())
        run.log_metrics(prompt.truncation())
        manifest = save_model(BACKBONE, "backbone", model, prompt, {"data": data})
        shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    print(f"backbone: {manifest.info['parameters']:,} parameters, width {manifest.info['width']}")
    return manifest.hash


def _take(source: str, params: BackboneParams) -> Backbone:
    return load_backbone(source, params.revision or None, params.dtype, default_device())


def _build(dataset: Dataset, small: SmallModelParams, prompt: PromptParams, seed: int) -> Backbone:
    documents = [document.contents for document in dataset.corpus.values()]
    queries = Supervision.build(dataset.corpus, dataset.qrels["train"]).texts(dataset.queries)
    tokenizer = build_tokenizer(template_texts(prompt, documents, queries), small.vocabulary, (prompt.yes, prompt.no))
    return Backbone(build_small_model(small, len(tokenizer), seed), tokenizer).to(default_device())


if __name__ == "__main__":
    main(backbone)
