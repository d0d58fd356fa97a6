"""Stage embed_corpus: the state of every document read alone, and what the training queries tell of it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import NamedTuple

from rabtriever.core.artifacts import atomic_folder, write_manifest
from rabtriever.core.settings import bounded
from rabtriever.core.stages import Paths, Tracker
from rabtriever.lm.prompt import PromptParams
from rabtriever.models.document_terms import MEMORY, remember, save_memory, score_weights
from rabtriever.training.embeddings import copy_shards, write_shards
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.model_io import open_teacher
from rabtriever.training.trainer import checkpoint_folder


@dataclass(frozen=True)
class EmbedParams:
    """Section `embed_corpus` of params.yaml: documents of a shard, and of a forward pass."""

    shard_size: int = bounded(ge=1)
    batch_size: int = bounded(ge=1)


class Sections(NamedTuple):
    """What the stage reads of params.yaml."""

    embed_corpus: EmbedParams
    prompt: PromptParams


def run(sections: Sections, paths: Paths, tracker: Tracker) -> str:
    """The hash of data/embeddings; shards finished before a kill are not computed again."""
    params = sections.embed_corpus
    prompt_params = sections.prompt
    dataset, data = prepared_data(paths.prepared)
    opened = open_teacher(paths.teacher, prompt_params, data)
    model, prompt, teacher = opened.backbone, opened.prompt, opened.manifest
    keys = {"data": data, "teacher": teacher.hash, "prompt": prompt.hash, **asdict(params)}
    scratch = checkpoint_folder(paths.checkpoints, "embed_corpus", keys)
    inputs = training_inputs(dataset, prompt)
    found = write_shards(opened.encoder, inputs.document_ids, scratch, params.shard_size, params.batch_size)
    tracker.log_metrics({"documents": len(dataset.corpus), "shards_resumed": found, **prompt.truncation()})
    with atomic_folder(paths.embeddings) as target:
        copy_shards(scratch, target)
        if score_weights(model).need_memory:
            asked = model.encode(inputs.query_ids, params.batch_size, "embed_corpus: training queries")
            save_memory(target / MEMORY, remember(asked, inputs.judgements.grades))
        manifest = write_manifest(
            target,
            "embeddings",
            {"data": data, "teacher": teacher.hash},
            {"rows": len(dataset.corpus), "width": model.width},
        )
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"embed_corpus: {len(dataset.corpus)} documents of width {model.width}")
    return manifest.hash
