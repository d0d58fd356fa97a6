"""Stage train_biencoder: a language model, built or taken from a source, trained to compare texts encoded alone.

It is the baseline that a user would train instead, and what the teacher starts from.
"""

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
from rabtriever.training.contrastive import BiencoderParams, ContrastiveModule
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
        pooling: embedding of a segment: the state of its last token, or the mean over its tokens.
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
    train_biencoder: BiencoderParams
    prompt: PromptParams
    random: SeedParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of models/biencoder, after contrastive training with hard negatives it mines itself."""
    params, seed = sections.train_biencoder, sections.random.seed
    check_templates(sections.prompt)
    dataset, data = prepared_data(paths.prepared)
    seed_torch(seed)  # a part that a pretrained model lacks is drawn at random, and so are adapters
    model, weights = _language_model(dataset, sections)
    prompt = Prompt(model.tokenizer, sections.prompt, model.context)
    if sections.backbone.source:
        check_reading(model, prompt)
    inputs = training_inputs(dataset, prompt)
    keys = {"data": data, "seed": seed, "prompt": prompt.hash, "weights": weights, **asdict(params)}
    keys |= {**asdict(sections.backbone), **asdict(sections.small_model)}
    checkpoints = checkpoint_folder(paths.checkpoints, "train_biencoder", keys)
    with tuning(model, params.lora_rank, params.gradient_checkpointing):
        module = ContrastiveModule(model, inputs.judgements, inputs.query_ids, inputs.document_ids, params, seed)
        fit(module, "train_biencoder", checkpoints, tracker.lightning_logger())
    tracker.log_metrics(prompt.truncation())
    origin = model_origin(sections.backbone.source, sections.backbone.revision)._asdict()
    manifest = save_model(paths.biencoder, "biencoder", model, prompt, {"data": data}, facts=origin)
    shutil.rmtree(checkpoints, ignore_errors=True)  # not before, or a kill would lose the training
    print(f"train_biencoder: {manifest.info['parameters']:,} parameters, width {manifest.info['width']}")
    return manifest.hash


def _language_model(dataset: Dataset, sections: Sections) -> tuple[Backbone, str]:
    """The model to train, and the identity of the weights it was loaded with: others may be put there."""
    params = sections.backbone
    source = resolve_source(params.source) if params.source else ""
    if source:
        model = load_backbone(source, params.revision or None, params.dtype, training_device())
    else:
        model = _build(dataset, sections.small_model, sections.prompt, sections.random.seed)
    model.configure(pooling=params.pooling, attention=params.attention)
    return model, content_hash(source) if source and Path(source).exists() else ""


def _build(dataset: Dataset, small: SmallModelParams, prompt: PromptParams, seed: int) -> Backbone:
    documents = [document.contents for document in dataset.corpus.values()]
    queries = Judgements.build(dataset.corpus, dataset.qrels["train"], dataset.queries).texts(dataset.queries)
    tokenizer = build_tokenizer(template_texts(prompt, documents, queries), small.vocabulary, (prompt.yes, prompt.no))
    return Backbone(build_small_model(small, len(tokenizer), seed), tokenizer).to(training_device())
