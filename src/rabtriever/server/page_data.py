"""What the views of the page show, as plain dicts that become JSON: one function per view.

The served page and the static file (`rabtriever report`) show the same. The views of cost and versions have modules of
their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rabtriever.data.beir_io import Document, Qrels
from rabtriever.data.statistics import normalised, notices
from rabtriever.server.project import Finished, Project

METRIC = "nDCG@10"
DEPTH = 10  # documents of a ranking that are shown
_LONG = 0.75  # a query is long from this share of the queries on, by words
_BARS = 24  # of a histogram, at most
_TOKENISED = 2_000  # documents, and queries, whose tokens are counted
_TEXT = 1_500  # characters of a document that the static file holds


def overview(finished: Finished) -> dict[str, Any]:
    """What every view needs: the data set's name and sizes, the systems with their metrics, and example queries."""
    evaluation = finished.evaluation
    return {
        "dataset": evaluation["dataset"],
        "queries": evaluation["num_queries"],
        "documents": evaluation["num_documents"],
        "retriever": evaluation["retriever"],
        "gap_closed": evaluation.get("gap_closed"),
        "systems": finished.systems,
        "metrics": evaluation["systems"],
        "examples": [sample["query"] for sample in finished.samples],
    }


def losses(finished: Finished) -> dict[str, Any]:
    """Every test query with each system's nDCG@10 (0 to 1), the grade of its first document, and what is special.

    `unseen` counts relevant documents that are relevant for no training query. A query is long from `long_from` words.
    """
    test, systems = finished.dataset.qrels["test"], finished.systems
    rows = []
    for query_id in finished.per_query[systems[0]]:
        relevant = [doc_id for doc_id, grade in test[query_id].items() if grade > 0]
        rows.append(
            {
                "id": query_id,
                "text": finished.dataset.queries[query_id],
                "words": len(finished.dataset.queries[query_id].split()),
                "relevant": len(relevant),
                "unseen": sum(doc_id not in finished.relevant_in_training for doc_id in relevant),
                "values": {name: finished.per_query[name][query_id][METRIC] for name in systems},
                "first": {name: _first_grade(finished, name, query_id) for name in systems},
            }
        )
    words = sorted(row["words"] for row in rows)
    return {"metric": METRIC, "systems": systems, "long_from": words[int(_LONG * (len(words) - 1))], "queries": rows}


def rankings(finished: Finished, query_id: str, text_limit: int | None = None) -> dict[str, Any]:
    """The first documents that each system has for a test query, as its run recorded them.

    Args:
        finished: the run.
        query_id: one of its test queries.
        text_limit: characters of a text that are kept; all when None.

    Raises:
        KeyError: no such test query.
    """
    best = {name: ranked(finished.runs[name].get(query_id, {}))[:DEPTH] for name in finished.systems}
    named = {doc_id for hits in best.values() for doc_id, _ in hits} | set(finished.dataset.qrels["test"][query_id])
    corpus = finished.dataset.corpus
    return {
        "id": query_id,
        "query": finished.dataset.queries[query_id],
        "rankings": best,
        "grades": finished.grades(query_id),
        "values": {name: finished.per_query[name].get(query_id, {}).get(METRIC) for name in finished.systems},
        "documents": {doc_id: shown(corpus[doc_id], text_limit) for doc_id in sorted(named)},
    }


def all_rankings(finished: Finished) -> dict[str, Any]:
    """What `rankings` has of every test query, each document once: the static file's search and comparisons."""
    documents: dict[str, Any] = {}
    queries = []
    for query_id in finished.per_query[finished.systems[0]]:
        found = rankings(finished, query_id, _TEXT)
        documents |= found.pop("documents")
        queries.append(found)
    return {"queries": queries, "documents": documents}


def shown(document: Document, text_limit: int | None = None) -> dict[str, str]:
    """Title and text of a document; a text over the limit ends in an ellipsis."""
    text = document.text
    if text_limit is not None and len(text) > text_limit:
        text = text[:text_limit] + " …"
    return {"title": document.title, "text": text}


def ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Documents with their scores, best first; equal scores by document id, as the metrics order them."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def judged(project: Project, query: str) -> dict[str, Any]:
    """The id and the judgements of a query that is in the data set, whatever its case and punctuation."""
    finished = project.finished()
    query_id = finished.query_of_text.get(normalised(query))
    return {"id": query_id, "grades": finished.grades(query_id)}


def data(finished: Finished, project: Project) -> dict[str, Any]:
    """Sizes, lengths, truncation, judgements a query, unseen documents, and what the data contract found."""
    dataset, report = finished.dataset, finished.report
    texts = {
        "documents": [document.contents for document in dataset.corpus.values()],
        "queries": list(dataset.queries.values()),
    }
    return {
        "source": report["source"],
        "hash": report["hash"],
        "documents": len(dataset.corpus),
        "queries": len(dataset.queries),
        "splits": {name: _split(finished, name, qrels) for name, qrels in dataset.qrels.items()},
        "raw": report["splits"],
        "dev_cut_from_train": report.get("dev_cut_from_train"),
        "words": {name: histogram([len(text.split()) for text in found]) for name, found in texts.items()},
        "truncation": truncation(project, texts),
        "never_relevant": len(set(dataset.corpus) - finished.relevant_in_training),
        "expectations": report["expectations"],
        "notices": notices(report),
    }


def truncation(project: Project, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """How many texts the models cut, with the tokenizer of models/retriever; `missing` says why that is not known."""
    from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest

    try:
        manifest = read_manifest(project.paths.retriever, "retriever", verify=False)
        return _cut(project.paths.retriever / "encoder/tokenizer", manifest.info["prompt"], texts)
    except (OSError, ArtifactMismatchError, KeyError, ValueError) as error:
        return {"missing": f"Truncation needs the tokenizer of {project.paths.retriever}: {error}"}


def _cut(tokenizer: Path, prompt: Mapping[str, Any], texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    from transformers import PreTrainedTokenizerFast

    from rabtriever.lm.prompt import PromptParams, Segment

    if not (tokenizer / "tokenizer.json").is_file():
        raise FileNotFoundError(f"there is no {tokenizer / 'tokenizer.json'}")
    loaded, params, found = PreTrainedTokenizerFast.from_pretrained(tokenizer), PromptParams(**prompt), {}
    for name, one, limit in (
        ("documents", "document", params.max_document_tokens),
        ("queries", "query", params.max_query_tokens),
    ):
        segment = Segment(loaded, getattr(params, one), one, limit)
        segment.ids(texts[name][:_TOKENISED])
        found[name] = {"cut": segment.truncated, "of": segment.seen, "limit": limit}
    return found


def histogram(values: Sequence[int]) -> dict[str, Any]:
    """Counts of whole numbers in equal ranges: {low, high, count} each, with median and largest value."""
    low, high = min(values, default=0), max(values, default=0)
    width = max(1, -(-(high - low + 1) // _BARS))
    counts = Counter((value - low) // width for value in values)
    bars = [
        {"low": low + number * width, "high": low + (number + 1) * width - 1, "count": counts[number]}
        for number in range((high - low) // width + 1)
    ]
    middle = sorted(values)[len(values) // 2] if values else 0
    return {"bars": bars, "median": middle, "largest": high}


def _split(finished: Finished, name: str, qrels: Qrels) -> dict[str, Any]:
    positives = {query_id: [d for d, grade in grades.items() if grade > 0] for query_id, grades in qrels.items()}
    relevant = {doc_id for found in positives.values() for doc_id in found}
    seen = finished.relevant_in_training
    return {
        "queries": len(qrels),
        "judgements": sum(map(len, qrels.values())),
        "relevant_documents": len(relevant),
        "unseen_documents": None if name == "train" else len(relevant - seen),
        "queries_with_unseen": None if name == "train" else _with_unseen(positives.values(), seen),
        "grades": dict(sorted(Counter(grade for grades in qrels.values() for grade in grades.values()).items())),
        "positives_a_query": histogram([len(found) for found in positives.values()]),
    }


def _with_unseen(positives: Iterable[Sequence[str]], seen: frozenset[str]) -> int:
    return sum(any(doc_id not in seen for doc_id in found) for found in positives)


def _first_grade(finished: Finished, system: str, query_id: str) -> int:
    best = ranked(finished.runs[system].get(query_id, {}))[:1]
    return finished.dataset.qrels["test"][query_id].get(best[0][0], 0) if best else 0
