"""A bi-encoder that sentence-transformers trains: the same backbone, data and optimiser, with another project's loss.

It stands beside our own `biencoder`, so that nobody has to take our word that the rival is trained well. It needs the
extra `research`. Import this module only where it is used: sentence-transformers takes seconds to load.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from datasets import Dataset as Pairs
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules.input_module import InputModule
from sentence_transformers.base.training_args import BatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt
from rabtriever.training.contrastive import BiencoderParams, ContrastiveModule
from rabtriever.training.inputs import TrainingInputs

QUERY = "query"  # told by the trainer as the prompt of the queries' column: they have a template of their own


class BackboneModule(InputModule):
    """A backbone as the only module of a sentence-transformers model.

    Args:
        backbone: trained in place.
        prompt: the segments that queries and documents are filled into.
    """

    def __init__(self, backbone: Backbone, prompt: Prompt) -> None:
        super().__init__()
        self.backbone, self.segments, self.tokenizer = backbone, prompt, backbone.tokenizer

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Right-padded ids (B, T) and mask (B, T) of queries with `prompt` QUERY, else of documents."""
        segment = self.segments.query if prompt == QUERY else self.segments.document
        ids, mask = pad(segment.ids(list(inputs)))
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Adds `sentence_embedding`, (B, H) of length one."""
        states = self.backbone.embed(features["input_ids"], features["attention_mask"])
        return {**features, "sentence_embedding": F.normalize(states, dim=-1)}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """The study saves the backbone itself.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{output_path} was not written: save the backbone with save_model")


def train_sentence_biencoder(
    backbone: Backbone, prompt: Prompt, inputs: TrainingInputs, params: BiencoderParams, seed: int, scratch: Path
) -> None:
    """Trains a backbone in place with MultipleNegativesRankingLoss over pairs of a query and a positive document.

    Negatives are those of the batch, in which no text comes twice. Hard negatives are not mined.

    Args:
        backbone: the warmed-up one.
        prompt: its segments.
        inputs: training queries, documents and judgements.
        params: steps, batch size, temperature and optimiser; `hard_negatives` and `language_model` are not read.
        seed: of the order of the pairs.
        scratch: folder that the trainer may write to.
    """
    facts = inputs.judgements, inputs.query_ids, inputs.document_ids
    optimizer = ContrastiveModule(backbone, *facts, params, seed).configure_optimizers()
    model = SentenceTransformer(modules=[BackboneModule(backbone, prompt)], device=str(backbone.device))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(scratch),
            max_steps=params.steps,
            per_device_train_batch_size=params.batch_size,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            prompts={"anchor": QUERY},
            seed=seed,
            use_cpu=backbone.device.type == "cpu",
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=_pairs(inputs),
        loss=MultipleNegativesRankingLoss(model, scale=1 / params.temperature),
        optimizers=(optimizer["optimizer"], optimizer["lr_scheduler"]["scheduler"]),
    )
    trainer.train()
    backbone.eval()


def _pairs(inputs: TrainingInputs) -> Pairs:
    """A row for each training query and each of its positives."""
    dataset = inputs.dataset
    found = [
        (dataset.queries[query], dataset.corpus[doc].contents)
        for query, judged in dataset.qrels["train"].items()
        for doc, grade in judged.items()
        if grade > 0 and doc in dataset.corpus
    ]
    return Pairs.from_dict({"anchor": [query for query, _ in found], "positive": [text for _, text in found]})
