"""Measures how well scores tell the queries that no document answers, and which calibration fits them.

`python benchmarks/abstention.py models/retriever path/to/clinc150 --biencoder models/biencoder` writes
docs/evaluation/abstention.json; `python docs/update_tables.py` then redraws the table. The data are a folder in BEIR
layout with dev queries, and with `out_of_scope.jsonl`: `_id`, `text` and `split` of queries without an answer.

Cut and calibration are chosen on dev queries that have an answer; out-of-scope queries are only measured.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rabtriever.core.artifacts import write_json
from rabtriever.core.vectors import unit
from rabtriever.data.beir_io import Dataset, load_dataset
from rabtriever.data.metrics import queries_without_relevant
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.prompt import Prompt, PromptParams
from rabtriever.search.bm25 import Bm25
from rabtriever.search.retriever import Retriever
from rabtriever.training.calibrating import JudgedHits, fit_calibration, judged_hits

TARGET = Path(__file__).resolve().parents[1] / "docs/evaluation/abstention.json"
KEPT = 0.95  # share of the answerable dev queries that the cut lets through
PRECISION, FOLDS = 0.9, 5
_SURE = 1e-4  # from 0 and 1: nearer probabilities would decide on the log loss alone

Tops = Callable[[Sequence[str]], np.ndarray]


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("retriever", type=Path, help="retriever folder")
    parser.add_argument("data", type=Path, help="folder in BEIR layout with out_of_scope.jsonl")
    parser.add_argument("--biencoder", type=Path, help="models/biencoder of the same project")
    parser.add_argument("--target", type=Path, default=TARGET)
    arguments = parser.parse_args()
    report = measure(Retriever.load(arguments.retriever), arguments.data, arguments.biencoder)
    write_json(arguments.target, report)
    print(json.dumps(report, indent=2))


def measure(retriever: Retriever, folder: Path, biencoder: Path | None = None) -> dict[str, Any]:
    """The report on a retriever, BM25 and, where there is one, a bi-encoder; shares in per cent.

    Raises:
        ValueError: the data lack dev queries or out-of-scope queries of test, or are not those of the retriever.
    """
    dataset, outside = load_dataset(folder), out_of_scope(folder, "test")
    if not dataset.qrels.get("dev"):
        raise ValueError(f"{folder} has no dev queries, expected some to choose the cut on; add qrels/dev.tsv")
    if dataset.corpus != {document.doc_id: document for document in retriever.documents}:
        raise ValueError(f"the retriever has other documents than {folder}; name the data that it was trained on")
    dev, test = (answerable(dataset, split) for split in ("dev", "test"))
    systems = {"student": _student(retriever), "BM25": _bm25(dataset)}
    if biencoder is not None:
        systems["bi-encoder"] = _biencoder(dataset, biencoder, PromptParams(**retriever.manifest.info["prompt"]))
    scores = {name: [tops(texts) for texts in (dev, test, outside)] for name, tops in systems.items()}
    hits = judged_hits(retriever.rank(dataset.split_queries("dev"), 10), dataset.qrels["dev"])
    return {
        "dataset": folder.name,
        "retriever": retriever.manifest.hash,
        "answerable": {"dev": len(dev), "test": len(test)},
        "out_of_scope": len(outside),
        "systems": {name: separation(*found) for name, found in scores.items()},
        "threshold": at_threshold(hits, *scores["student"][1:]),
        "calibrators": compared(hits),
    }


def out_of_scope(folder: Path, split: str) -> list[str]:
    """The queries of a split that no document answers.

    Raises:
        FileNotFoundError: there is no out_of_scope.jsonl.
        ValueError: it has none of this split.
    """
    path = folder / "out_of_scope.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if texts := [row["text"] for row in rows if row["split"] == split]:
        return texts
    raise ValueError(f"{path} has no query of the split {split!r}, expected some without an answer")


def answerable(dataset: Dataset, split: str) -> list[str]:
    """The queries of a split that have a relevant document."""
    without = set(queries_without_relevant(dataset.qrels[split]))
    return [text for query_id, text in dataset.split_queries(split).items() if query_id not in without]


def _student(retriever: Retriever) -> Tops:
    return lambda texts: np.array([hits[0].score for hits in retriever.search(list(texts), 1)])


def _bm25(dataset: Dataset) -> Tops:
    index = Bm25([document.contents for document in dataset.corpus.values()])
    return lambda texts: index.rank(texts, 1)[1][:, 0]


def _biencoder(dataset: Dataset, folder: Path, params: PromptParams) -> Tops:
    """The cosine of the nearest document."""
    backbone = load_backbone(folder / "model")
    prompt = Prompt(backbone.tokenizer, params, backbone.context)
    contents = [document.contents for document in dataset.corpus.values()]
    documents = unit(backbone.encode(prompt.document.ids(contents), 256))
    return lambda texts: (unit(backbone.encode(prompt.query.ids(list(texts)), 256)) @ documents.T).max(axis=1)


def separation(dev: np.ndarray, test: np.ndarray, outside: np.ndarray) -> dict[str, float]:
    """How well top scores tell answerable queries from others.

    Args:
        dev: top scores of answerable dev queries, which the cut is chosen on.
        test: of answerable test queries.
        outside: of test queries without an answer.

    Returns:
        `auroc` in per cent, and the shares of test queries `kept` and of those without an answer `refused` at the cut.
    """
    from sklearn.metrics import roc_auc_score

    right = np.concatenate([np.ones(len(test)), np.zeros(len(outside))])
    auroc = roc_auc_score(right, np.concatenate([test, outside]))
    cut = np.sort(dev)[::-1][math.ceil(KEPT * len(dev)) - 1]  # the highest that keeps so many
    return {
        "auroc": _per_cent(auroc),
        "kept": _per_cent(np.mean(test >= cut)),
        "refused": _per_cent(np.mean(outside < cut)),
    }


def at_threshold(hits: JudgedHits, test: np.ndarray, outside: np.ndarray) -> dict[str, float] | None:
    """Shares of queries with a hit above the threshold for a precision of 0.9, which is chosen on dev hits."""
    fitted = fit_calibration(hits, PRECISION).calibration
    if fitted is None or fitted.threshold is None:
        return None
    above = [np.mean([fitted.probability(score) >= fitted.threshold for score in scores]) for scores in (test, outside)]
    return {
        "relevance_score": round(fitted.threshold, 3),
        "answerable_answered": _per_cent(above[0]),
        "out_of_scope_answered": _per_cent(above[1]),
    }


def compared(hits: JudgedHits) -> dict[str, dict[str, float]]:
    """Brier score and log loss of Platt scaling and isotonic regression, on dev queries that were held out in turn."""
    from sklearn.isotonic import IsotonicRegression
    from sklearn.metrics import brier_score_loss, log_loss

    predicted = {name: np.zeros(len(hits.scores)) for name in ("Platt", "isotonic")}
    for fold in range(FOLDS):
        held = hits.queries % FOLDS == fold
        fitted = fit_calibration(JudgedHits(*(part[~held] for part in hits)), PRECISION).calibration
        if fitted is None:
            raise ValueError(f"dev hits outside of fold {fold} cannot be calibrated; take more dev queries")
        isotonic = IsotonicRegression(out_of_bounds="clip").fit(hits.scores[~held], hits.right[~held])
        predicted["Platt"][held] = [fitted.probability(score) for score in hits.scores[held]]
        predicted["isotonic"][held] = isotonic.predict(hits.scores[held])
    clipped = {name: np.clip(values, _SURE, 1 - _SURE) for name, values in predicted.items()}
    return {
        name: {
            "brier": round(brier_score_loss(hits.right, values), 5),
            "log_loss": round(log_loss(hits.right, values), 5),
        }
        for name, values in clipped.items()
    }


def _per_cent(share: float) -> float:
    return round(100 * float(share), 1)


if __name__ == "__main__":
    main()
