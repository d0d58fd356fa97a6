"""Stage embed_corpus: the state of every document read alone, once per teacher, and what training queries tell of it.

Run as `python -m flows.embed_corpus`.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass

from prefect import flow

from flows.common import CHECKPOINTS, EMBEDDINGS, PARAMS, PREPARED, TEACHER, main
from rabtriever.artifacts import atomic_folder, write_manifest
from rabtriever.document_terms import remember
from rabtriever.embeddings import MEMORY, copy_shards, save_memory, write_shards
from rabtriever.inputs import open_teacher, prepared_data, training_inputs
from rabtriever.params import bounded, load_params
from rabtriever.prompt import PromptParams
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder


@dataclass(frozen=True)
class EmbedParams:
    """Section `embed_corpus` of params.yaml: documents of a shard, and of a forward pass."""

    shard_size: int = bounded(ge=1)
    batch_size: int = bounded(ge=1)


@flow(name="embed_corpus")
def embed_corpus() -> str:
    """The hash of data/embeddings; shards finished before a kill are not computed again."""
    params = load_params(EmbedParams, "embed_corpus", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    dataset, data = prepared_data(PREPARED)
    with stage_run("embed_corpus", params) as run:
        opened = open_teacher(TEACHER, prompt_params, data)
        model, prompt, teacher = opened.backbone, opened.prompt, opened.manifest
        keys = {"data": data, "teacher": teacher.hash, "prompt": prompt.hash, **asdict(params)}
        scratch = checkpoint_folder(CHECKPOINTS, "embed_corpus", keys)
        inputs = training_inputs(dataset, prompt)
        found = write_shards(opened.encoder, inputs.document_ids, scratch, params.shard_size, params.batch_size)
        run.log_metrics({"documents": len(dataset.corpus), "shards_resumed": found, **prompt.truncation()})
        with atomic_folder(EMBEDDINGS) as target:
            copy_shards(scratch, target)
            if model.weights.need_memory:
                asked = model.encode(inputs.query_ids, params.batch_size, "embed_corpus: training queries")
                save_memory(target / MEMORY, remember(asked, inputs.supervision.grades))
            manifest = write_manifest(
                target,
                "embeddings",
                {"data": data, "teacher": teacher.hash},
                {"rows": len(dataset.corpus), "width": model.width},
            )
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"embed_corpus: {len(dataset.corpus)} documents of width {model.width}")
    return manifest.hash


if __name__ == "__main__":
    main(embed_corpus)
