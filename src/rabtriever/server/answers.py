"""From hits and scores to the answers of the HTTP interface."""

from __future__ import annotations

from collections.abc import Sequence

from rabtriever.search.calibration import UNCALIBRATED, Calibration
from rabtriever.search.live import Filter, LiveRetriever
from rabtriever.search.retriever import Hit
from rabtriever.server import schemas
from rabtriever.server.errors import ApiError, in_ascii

Reranked = str | schemas.RerankId | schemas.RerankText


def search_result(live: LiveRetriever, hits: Sequence[Hit], threshold: float | str | None) -> schemas.SearchResult:
    """The answer to one query.

    Args:
        live: the retriever that found the hits.
        hits: best first.
        threshold: drops hits of a lower relevance score; "auto" is the one of the version.

    Raises:
        ApiError: 422, the threshold is "auto" and the version has none.
    """
    calibration = calibration_of(live)
    least = _least(threshold, calibration)
    chances = [calibration.probability(hit.score) for hit in hits]
    low = None
    if calibration.threshold is not None:
        low = not chances or chances[0] < calibration.threshold
    shown = [_hit(hit, chance) for hit, chance in zip(hits, chances, strict=True) if least is None or chance >= least]
    return schemas.SearchResult(hits=shown, low_confidence=low, version=live.version, model=model_of(live))


def rerank_response(
    live: LiveRetriever,
    request: schemas.RerankRequest,
    texts: Sequence[str],
    scores: Sequence[float],
    request_id: str,
) -> schemas.RerankResponse:
    """The answer to a rerank request.

    Args:
        live: the retriever that gave the scores.
        request: what was asked.
        texts: of the documents, in their order.
        scores: of the documents, in their order.
        request_id: id of the request.
    """
    calibration = calibration_of(live)
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[: request.top_n]
    results = [
        schemas.RerankResult(
            index=index,
            relevance_score=calibration.probability(scores[index]),
            document=schemas.RerankText(text=texts[index]) if request.return_documents else None,
        )
        for index in order
    ]
    return schemas.RerankResponse(id=request_id, model=f"rabtriever@{live.version or model_of(live)}", results=results)


def model_of(live: LiveRetriever) -> str:
    """First 12 digits of a retriever's hash; empty for one that was not saved."""
    return live.manifest.hash[:12] if live.manifest is not None else ""


def calibration_of(live: LiveRetriever) -> Calibration:
    """How scores of a retriever become probabilities; plain log-odds where its version was not calibrated."""
    return live.calibration or UNCALIBRATED


def _least(threshold: float | str | None, calibration: Calibration) -> float | None:
    if threshold != "auto":
        return threshold  # type: ignore[return-value]
    if calibration.threshold is None:
        raise ApiError(422, "threshold is 'auto', and the version in service has none; give a number from 0 to 1")
    return calibration.threshold


def _hit(hit: Hit, chance: float) -> schemas.SearchHit:
    return schemas.SearchHit(
        id=hit.doc_id,
        score=hit.score,
        relevance_score=chance,
        title=hit.title,
        text=hit.text,
        metadata=dict(hit.metadata),
    )


def as_filter(asked: schemas.Filter | None) -> Filter | None:
    """The filter of a request, as the retriever takes it."""
    if asked is None:
        return None
    ids = None if asked.ids is None else frozenset(asked.ids)
    return Filter(ids, {name: tuple(values) for name, values in asked.fields.items()})


def plain(document: str | schemas.RerankText) -> str:
    """The text of a document that was sent with its text."""
    return document if isinstance(document, str) else document.text


def text_of(document: Reranked, live: LiveRetriever) -> str:
    """The text of a document of a rerank request.

    Raises:
        ApiError: 422, the corpus has no document of this id.
    """
    if not isinstance(document, schemas.RerankId):
        return plain(document)
    try:
        return live.document(document.id).contents
    except ValueError as error:
        raise ApiError(422, in_ascii(error)) from error
