"""Stage backbone: the language model everything starts from, built and warmed up, or taken from a source."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from rabtriever.core.artifacts import content_hash
from rabtriever.core.seeding import SeedParams, seed_torch
from rabtriever.core.stages import Paths, Tracker
from rabtriever.data.beir_io import Dataset
from rabtriever.data.judgements import Judgements
from rabtriever.lm.adapters import tuning
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.model_origin import model_origin
from rabtriever.lm.model_source import resolve_source
from rabtriever.lm.prompt import Prompt, PromptParams, check_templates, template_texts
from rabtriever.lm.small_model import SmallModelParams, build_small_model, build_tokenizer
from rabtriever.models.reranker import check_reading
from rabtriever.training.contrastive import ContrastiveModule, ContrastiveParams
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import save_model, training_device
from rabtriever.training.trainer import checkpoint_folder, fit


@dataclass(frozen=True)
class BackboneParams:
    """Section `backbone` of params.yaml.

    Attributes:
        source: folder, GGUF file or hub name of a causal language model; empty builds the small one from scratch.
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


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    backbone: BackboneParams
    small_model: SmallModelParams
    warmup: ContrastiveParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/backbone, after building or taking the model and warming it up on the training pairs."""
    params = sections.backbone
    small = sections.small_model
    warmup = sections.warmup
    prompt_params = sections.prompt
    seed = sections.random.seed
    check_templates(prompt_params)
    dataset, data = prepared_data(paths.prepared)
    seed_torch(seed)  # a part that a pretrained model lacks is drawn at random
    source = resolve_source(params.source) if params.source else ""
    model = _take(source, params) if source else _build(dataset, small, prompt_params, seed)
    model.configure(pooling=params.pooling, attention=params.attention)
    prompt = Prompt(model.tokenizer, prompt_params, model.context)
    if params.source:
        check_reading(model, prompt)
    inputs = training_inputs(dataset, prompt)
    keys = {"data": data, "seed": seed, **asdict(params), **asdict(small), **asdict(warmup), "prompt": prompt.hash}
    keys["weights"] = content_hash(source) if source and Path(source).exists() else ""  # others may be put there
    checkpoints = checkpoint_folder(paths.checkpoints, "backbone", keys)
    with tuning(model, warmup.lora_rank, warmup.gradient_checkpointing):
        module = ContrastiveModule(model, inputs.judgements, inputs.query_ids, inputs.document_ids, warmup, seed)
        fit(module, "backbone", checkpoints, tracker.lightning_logger())
    tracker.log_metrics(prompt.truncation())
    origin = model_origin(params.source, params.revision)._asdict()
    manifest = save_model(paths.backbone, "backbone", model, prompt, {"data": data}, facts=origin)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    print(f"backbone: {manifest.info['parameters']:,} parameters, width {manifest.info['width']}")
    return manifest.hash


def _take(source: str, params: BackboneParams) -> Backbone:
    return load_backbone(source, params.revision or None, params.dtype, training_device())


def _build(dataset: Dataset, small: SmallModelParams, prompt: PromptParams, seed: int) -> Backbone:
    documents = [document.contents for document in dataset.corpus.values()]
    queries = Judgements.build(dataset.corpus, dataset.qrels["train"], dataset.queries).texts(dataset.queries)
    tokenizer = build_tokenizer(template_texts(prompt, documents, queries), small.vocabulary, (prompt.yes, prompt.no))
    return Backbone(build_small_model(small, len(tokenizer), seed), tokenizer).to(training_device())
