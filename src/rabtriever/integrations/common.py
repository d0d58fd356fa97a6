"""What the modules for frameworks share: opening a retriever, the text of a hit, and texts in order of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from rabtriever.data.beir_io import Document
from rabtriever.search.calibration import UNCALIBRATED, Calibration
from rabtriever.search.retriever import Hit


class _Calibrated(Protocol):
    calibration: Calibration | None


@runtime_checkable
class Searcher(_Calibrated, Protocol):
    """What finds documents for a query, as a `Retriever` does."""

    def search(self, queries: str, k: int = 10) -> list[Hit]:
        """The k best documents, best first."""
        ...


@runtime_checkable
class TextScorer(_Calibrated, Protocol):
    """What scores any texts for a query, as a `Retriever` does."""

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """A score for each text; a higher one is more relevant."""
        ...


T = TypeVar("T", Searcher, TextScorer)


def missing(framework: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The error of a module whose framework is not installed."""
    return ModuleNotFoundError(
        f"rabtriever.integrations.{framework} needs the package {error.name}, which is not installed; "
        f"install it: pip install 'rabtriever[{framework}]'",
        name=error.name,
    )


def opened(model: str | Path | T) -> T | Any:
    """A retriever as it was given, or the one that `Retriever.load` finds under a name.

    Raises:
        FileNotFoundError, ValueError, ArtifactMismatchError: as `Retriever.load`.
    """
    if not isinstance(model, (str, Path)):
        return model
    from rabtriever.api import Retriever

    return Retriever.load(model)


def check_count(name: str, value: int | None) -> None:
    """Makes sure that a number of documents can be asked for; None stands for all of them.

    Raises:
        ValueError: it is below 1.
    """
    if value is not None and value < 1:
        raise ValueError(f"{name} is {value}, expected 1 or more; ask for at least one document")


def contents(hit: Hit) -> str:
    """Title and text as the model reads them, so that a reranker that is given a hit's text scores it alike."""
    return Document(hit.doc_id, hit.title, hit.text).contents


def facts(hit: Hit) -> dict[str, Any]:
    """What a framework keeps beside the text of a hit: the document's metadata, its title and its raw score."""
    return {**hit.metadata, "title": hit.title, "raw_score": hit.score}


def relevance(model: Searcher | TextScorer, score: float) -> float:
    """The probability, 0 to 1, that a document with this raw score helps; frameworks cut and merge by it."""
    return (model.calibration or UNCALIBRATED).probability(score)


def best_first(scorer: TextScorer, query: str, texts: Sequence[str], top: int | None) -> list[tuple[int, float]]:
    """Places and raw scores of the best texts, best first; equal scores keep their order.

    Args:
        scorer: what scores texts.
        query: what is wanted.
        texts: any texts; none gives an empty list.
        top: number of texts wanted; all when None.
    """
    if not texts:
        return []
    scores = scorer.score(query, list(texts))
    order = sorted(range(len(texts)), key=lambda place: -scores[place])
    return [(place, scores[place]) for place in order[:top]]
