"""What the training stages read alike: the prepared data, tokenised, and model folders with their parents checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rabtriever.artifacts import Manifest, atomic_folder, check_parent, read_manifest, write_manifest
from rabtriever.backbone import Backbone, default_device, load_backbone
from rabtriever.prompt import Prompt, PromptParams
from rabtriever.records import Dataset, load_dataset
from rabtriever.supervision import Supervision


@dataclass(frozen=True)
class TrainingInputs:
    """Tokenised training data.

    Attributes:
        dataset: the prepared data.
        supervision: training judgements over numbered queries and documents.
        prompt: the segments used; counts what it truncated.
        query_ids: token ids of each query row's segment.
        document_ids: token ids of each document row's segment.
    """

    dataset: Dataset
    supervision: Supervision
    prompt: Prompt
    query_ids: list[list[int]]
    document_ids: list[list[int]]


def training_inputs(dataset: Dataset, prompt: Prompt) -> TrainingInputs:
    """Numbers and tokenises the corpus and the training queries of a data set."""
    supervision = Supervision.build(dataset.corpus, dataset.qrels["train"])
    return TrainingInputs(
        dataset,
        supervision,
        prompt,
        prompt.query.ids(supervision.texts(dataset.queries)),
        document_ids(dataset, prompt),
    )


def document_ids(dataset: Dataset, prompt: Prompt) -> list[list[int]]:
    """Token ids of every document's segment, in corpus order."""
    return prompt.document.ids([document.contents for document in dataset.corpus.values()])


def prepared_data(folder: str | Path) -> tuple[Dataset, str]:
    """The prepared data and its artefact hash, after verifying the folder."""
    manifest = read_manifest(folder, "data")
    return load_dataset(folder), manifest.hash


def open_model(folder: str | Path, kind: str, prompt: PromptParams, data: str) -> tuple[Backbone, Prompt, Manifest]:
    """Loads a model folder, its weights as they were saved, if it was made from this data and with this prompt.

    Args:
        folder: models/backbone, models/teacher or models/biencoder.
        kind: what its manifest must say.
        prompt: the current prompt; a model trained with another one is refused.
        data: hash of the prepared data.

    Raises:
        ArtifactMismatchError: the folder is damaged, of another kind, or made from other parents.
    """
    manifest = read_manifest(folder, kind)
    backbone = load_backbone(Path(folder) / "model", device=default_device())
    built = Prompt(backbone.tokenizer, prompt, backbone.context)
    check_parent(manifest, "data", data)
    check_parent(manifest, "prompt", built.hash)
    return backbone, built, manifest


def save_model(folder: str | Path, kind: str, backbone: Backbone, prompt: Prompt, parents: dict[str, str]) -> Manifest:
    """Writes a model folder: the Hugging Face folder in `model/`, and a manifest with its parents and the prompt."""
    with atomic_folder(folder) as target:
        backbone.cpu().save(target / "model")
        info = {"width": backbone.width, "parameters": sum(p.numel() for p in backbone.model.parameters())}
        return write_manifest(target, kind, {**parents, "prompt": prompt.hash}, info)
