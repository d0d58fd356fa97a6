"""The bi-encoder that sentence-transformers trains: it learns from our segments, and the same seed gives the same."""

import dataclasses

import pytest
import torch

from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset
from rabtriever.training.contrastive import BiencoderParams
from rabtriever.training.inputs import training_inputs

pytest.importorskip("sentence_transformers", reason="the extra `research` is not installed")

PARAMS = BiencoderParams(
    steps=40,
    batch_size=6,
    hard_negatives=0,
    mining_depth=2,
    refresh_every=2,
    temperature=0.1,
    language_model=0.0,
    lora_rank=0,
    gradient_checkpointing=False,
    optimizer="adamw",
    learning_rate=3e-3,
    weight_decay=0.0,
    start_share=0.0,
)


@pytest.fixture
def inputs(toy, prompt):
    """The toy data with all of its queries for training."""
    return training_inputs(Dataset(toy.corpus, toy.queries, {"train": toy.qrels}), prompt)


def test_training_ranks_the_toy_positives_first(backbone, prompt, inputs, tmp_path):
    """The trainer updates a copy, or queries are read as documents: the whole does not learn (chance: 3 of 12)."""
    from research.sentence_biencoder import train_sentence_biencoder

    train_sentence_biencoder(backbone, prompt, inputs, PARAMS, 0, tmp_path)
    judged = inputs.judgements.positive_for_any
    documents = unit(backbone.encode([inputs.document_ids[row] for row in judged], 8))
    best = judged[(unit(backbone.encode(inputs.query_ids, 8)) @ documents.T).argmax(1)]
    right = sum(int(row) in grades for row, grades in zip(best, inputs.judgements.grades, strict=True))
    assert right >= 10 and not backbone.training


def test_same_seed_same_model(make_backbone, prompt, inputs, tmp_path):
    """Two trainings from the same data differ, so that a killed trial has other figures than one that was not."""
    from research.sentence_biencoder import train_sentence_biencoder

    vectors = []
    for seed in (0, 0, 1):
        backbone = make_backbone()
        train_sentence_biencoder(backbone, prompt, inputs, dataclasses.replace(PARAMS, steps=3), seed, tmp_path)
        vectors.append(torch.nn.utils.parameters_to_vector(backbone.parameters()))
    assert torch.equal(vectors[0], vectors[1]) and not torch.equal(vectors[0], vectors[2])


def test_queries_and_documents_have_segments_of_their_own(backbone, prompt):
    """A document filled into the query's template is another text than the one that is served."""
    from research.sentence_biencoder import QUERY, BackboneModule

    module, text = BackboneModule(backbone, prompt), "I would like some tea"
    for segment, told in ((prompt.query, QUERY), (prompt.document, None)):
        found = module.preprocess([text], prompt=told)
        assert found["input_ids"].tolist() == segment.ids([text]) and found["attention_mask"].all()
