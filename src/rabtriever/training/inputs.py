"""What the training stages read alike: the prepared data, tokenised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rabtriever.core.artifacts import read_manifest
from rabtriever.data.beir_io import Dataset, load_dataset
from rabtriever.data.judgements import Judgements
from rabtriever.lm.prompt import Prompt


@dataclass(frozen=True)
class TrainingInputs:
    """Tokenised training data.

    Attributes:
        dataset: the prepared data.
        judgements: training judgements over numbered queries and documents.
        prompt: the segments used; counts what it truncated.
        query_ids: token ids of each query row's segment.
        document_ids: token ids of each document row's segment.
    """

    dataset: Dataset
    judgements: Judgements
    prompt: Prompt
    query_ids: list[list[int]]
    document_ids: list[list[int]]


def training_inputs(dataset: Dataset, prompt: Prompt) -> TrainingInputs:
    """Numbers and tokenises the corpus and the training queries of a data set."""
    judgements = Judgements.build(dataset.corpus, dataset.qrels["train"], dataset.queries)
    return TrainingInputs(
        dataset,
        judgements,
        prompt,
        prompt.query.ids(judgements.texts(dataset.queries)),
        document_ids(dataset, prompt),
    )


def document_ids(dataset: Dataset, prompt: Prompt) -> list[list[int]]:
    """Token ids of every document's segment, in corpus order."""
    return prompt.document.ids([document.contents for document in dataset.corpus.values()])


def prepared_data(folder: str | Path) -> tuple[Dataset, str]:
    """The prepared data and its artefact hash, after verifying the folder."""
    manifest = read_manifest(folder, "data")
    return load_dataset(folder), manifest.hash
