"""MODEL_CARD.md of a retriever folder: what it is, where it is from, and how to read its answers.

The card is part of the folder's hash, so equal inputs give equal bytes: no time, path or run is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rabtriever.data.beir_io import Dataset
from rabtriever.lm.model_source import is_hub_name
from rabtriever.search.calibration import Calibration
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import DEPTH, Fit

SHOWN = ("nDCG@10", "MRR@10", "R@10", "R@100", "S@1")
_FRONT = """\
---
library_name: rabtriever
pipeline_tag: text-ranking
{base}tags:
- retrieval
- rationale-based-retrieval
- knowledge-distillation
---
"""
_CARD = """\

# Retriever over {documents:,} documents

This folder answers queries with documents of one corpus.
rabtriever distilled it from a reranker that reads query and document together.
The right document may follow from a query by reasoning, without sharing its words.

## How to load it

```python
from rabtriever import Retriever

retriever = Retriever.load("path/of/this/folder")
for hit in retriever.search("...", k=5):
    print(f"{{hit.score:.1f}}  {{hit.doc_id}}  {{hit.title}}")
```

Loading compares every file with `manifest.json` and executes no code of this folder.

## Intended use

It finds documents for a person, or for a program that checks them. It ranks and does not decide.

## What it is made of

| part | value |
|---|---|
{parts}

## How to read a score

`score` is the student's estimate of the teacher's score, in nats. A higher one is more relevant.
{reading}

## Figures on dev

{figures}

## Limits

- The gate decides on dev queries, so dev figures flatter. The registry's table has those on test queries.
- A document that nobody judged counts as wrong. Probabilities are too low where judgements are incomplete.
- Documents and queries unlike those it was trained on are ranked worse. Measure them before you rely on it.
- It repeats the bias of its backbone and of its judgements.
"""
_READING = """\
`1 / (1 + exp(-({slope:g} * score {sign} {intercept:g})))` is the probability that the hit is right.
The server calls it `relevance_score`, and `retriever.calibration.probability(score)` gives it.
It was fitted on the first {depth} hits of each dev query.
{threshold}"""


class Figures(NamedTuple):
    """What was measured on the dev queries.

    Attributes:
        metrics: their means in per cent, by name; empty where no dev query has a relevant document.
        shortlist_recall: share of the exact top 10 that the shortlist proposes, in per cent; None where there is none.
    """

    metrics: Mapping[str, float]
    shortlist_recall: float | None


def model_card(
    retriever: Retriever,
    dataset: Dataset,
    backbone: Mapping[str, Any],
    parents: Mapping[str, str],
    fit: Fit,
    figures: Figures,
) -> str:
    """The card of a retriever, as Markdown with a front matter in Hugging Face's form.

    Args:
        retriever: what the card is of.
        dataset: what it was trained on.
        backbone: facts of the manifest of models/biencoder.
        parents: hash of each artefact that the retriever is made from, by name.
        fit: its calibration, or why it has none.
        figures: on the dev queries.
    """
    source = backbone.get("source", "")
    base = f"base_model: {source}\n" if source and is_hub_name(source) else ""
    parts = _parts(retriever, dataset, backbone, parents, figures)
    body = _CARD.format(
        documents=len(retriever),
        parts="\n".join(f"| {name} | {value} |" for name, value in parts.items()),
        reading=_reading(fit),
        figures=_figures(figures.metrics, len(dataset.qrels["dev"])),
    )
    return _FRONT.format(base=base) + body


def _parts(
    retriever: Retriever,
    dataset: Dataset,
    backbone: Mapping[str, Any],
    parents: Mapping[str, str],
    figures: Figures,
) -> dict[str, str]:
    train = dataset.qrels["train"]
    judgements = sum(map(len, train.values()))
    scan = "every document is scored" if retriever.exact else "a FAISS shortlist proposes, the student scores"
    recall = "" if figures.shortlist_recall is None else f", {figures.shortlist_recall:.1f} % of the exact first 10"
    return {
        "backbone": _backbone(backbone),
        "licence of the backbone": _licence(backbone),
        "training data": f"{len(train):,} queries with {judgements:,} judgements",
        "dev data": f"{len(dataset.qrels['dev']):,} queries",
        "hash of the data": f"`{dataset.hash}`",
        "teacher, student": f"`{parents['teacher'][:12]}`, `{parents['student'][:12]}`",
        "search": f"{scan}{recall}; {retriever.bytes_per_document:,} bytes a document",
    }


def _backbone(facts: Mapping[str, Any]) -> str:
    if "source" not in facts:
        return "not recorded"
    size = f"{facts['parameters']:,} parameters"
    if not facts["source"]:
        return f"a small language model, trained from scratch on the corpus and the training queries; {size}"
    revision = f" at revision `{facts['revision']}`" if facts["revision"] else ""
    return f"`{facts['source']}`{revision}, fine-tuned; {size}"


def _licence(facts: Mapping[str, Any]) -> str:
    if facts.get("licence"):
        return str(facts["licence"])
    source = facts.get("source")
    if source == "":
        return "none: no foreign weights"
    return f"see https://huggingface.co/{source}" if source and is_hub_name(source) else "not known"


def _reading(fit: Fit) -> str:
    if fit.calibration is None:
        return f"It is not calibrated: {fit.missing}."
    made = fit.calibration
    sign = "-" if made.intercept < 0 else "+"
    return _READING.format(
        slope=made.slope, sign=sign, intercept=abs(made.intercept), depth=DEPTH, threshold=_threshold(made)
    )


def _threshold(made: Calibration) -> str:
    if made.threshold is None:
        return f"No `relevance_score` reaches a precision of {100 * made.precision:g} % on dev."
    return f"From a `relevance_score` of {made.threshold:.3f} on, {100 * made.precision:g} % of these hits are right."


def _figures(metrics: Mapping[str, float], queries: int) -> str:
    if not metrics:
        return "No dev query has a relevant document, so there are none."
    cells = " | ".join(f"{metrics[name]:.1f}" for name in SHOWN)
    head = f"| {' | '.join(SHOWN)} |\n|{'---:|' * len(SHOWN)}"
    return f"Per cent, over {queries:,} dev queries:\n\n{head}\n| {cells} |"
