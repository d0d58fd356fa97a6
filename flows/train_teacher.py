"""Stage train_teacher: the generative reranker, fine-tuned on yes/no and on each query's candidates.

Run as `python -m flows.train_teacher`.
"""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow

from flows.common import BIENCODER, CHECKPOINTS, PARAMS, PREPARED, TEACHER, main
from rabtriever.averaging import average_weights
from rabtriever.backbone import Backbone
from rabtriever.contrastive import mine_with_cosine
from rabtriever.fitting import try_weights
from rabtriever.inputs import open_model, prepared_data, save_model, training_inputs
from rabtriever.lora import tuning
from rabtriever.params import load_params
from rabtriever.preference import PreferenceModule
from rabtriever.prompt import Prompt, PromptParams
from rabtriever.records import Dataset
from rabtriever.reranker import Reranker
from rabtriever.seeding import SeedParams, seed_torch
from rabtriever.supervision import Supervision
from rabtriever.teacher import TeacherModule, TeacherParams
from rabtriever.tracking import stage_run
from rabtriever.training import checkpoint_folder, fit

FIT_BATCH = 256  # pairs of one forward pass


@flow(name="train_teacher")
def train_teacher() -> str:
    """The hash of models/teacher, after training it."""
    params = load_params(TeacherParams, "train_teacher", PARAMS)
    prompt_params = load_params(PromptParams, "prompt", PARAMS)
    seed = load_params(SeedParams, "random", PARAMS).seed
    dataset, data = prepared_data(PREPARED)
    with stage_run("train_teacher", params) as run:
        model, prompt, parent = open_model(BIENCODER, "biencoder", prompt_params, data)
        parents = {"data": data, "backbone": parent.parents["backbone"], "biencoder": parent.hash}
        inputs = training_inputs(dataset, prompt)
        mined = mine_with_cosine(
            model,
            inputs.supervision,
            inputs.query_ids,
            inputs.document_ids,
            params.mining_depth,
            label="train_teacher: hard negatives",
        )
        keys = {"biencoder": parent.hash, "seed": seed, **asdict(params)}
        facts = (prompt, inputs.supervision, inputs.query_ids, inputs.document_ids, mined, params, seed)

        def tune(name: str, module: type[TeacherModule]) -> None:
            seed_torch(seed)  # of the adapters, also where a resumed run has skipped the phase before
            with tuning(model, params.lora_rank, params.gradient_checkpointing):
                fit(module(model, *facts), name, checkpoint_folder(CHECKPOINTS, name, keys), run.lightning_logger())

        tune("train_teacher", TeacherModule)
        average_weights(model, BIENCODER / "model", params.start_share)
        if params.dpo_steps:
            tune("train_teacher-dpo", PreferenceModule)
        run.log_metrics(prompt.truncation())
        if params.similarity > 0 and params.fit_depth > 0:
            run.log_metrics(_fit_weights(model, prompt, dataset, inputs.document_ids, params))
        manifest = save_model(TEACHER, "teacher", model, prompt, parents)
    return manifest.hash


def _fit_weights(
    model: Backbone, prompt: Prompt, dataset: Dataset, document_ids: list[list[int]], params: TeacherParams
) -> dict[str, float]:
    """Gives the model the weights that rank dev queries best; of equals those with more similarity."""
    dev = Supervision.build(dataset.corpus, dataset.qrels["dev"])
    query_ids = prompt.query.ids(dev.texts(dataset.queries))
    tried = try_weights(Reranker(model, prompt), dev, query_ids, document_ids, params.fit_depth, FIT_BATCH)
    best = max(tried, key=lambda one: (tried[one], one.similarity, -one.evidence))
    model.configure(**best._asdict())
    print("train_teacher: nDCG@10 on dev by weights of evidence and similarity: ", end="")
    print(", ".join(f"{one.evidence:g} and {one.similarity:g}: {value:.1f}" for one, value in tried.items()))
    print(f"train_teacher: evidence {best.evidence:g}, similarity {best.similarity:g}")
    return {**best._asdict(), "dev_ndcg_10": tried[best]}


if __name__ == "__main__":
    main(train_teacher)
