"""Requests and answers of the HTTP interface, as pydantic models; the pages at /docs are made of them.

Limits that a server can be started with (lengths, k, counts) are checked in `limits.py`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from rabtriever.data.beir_io import Document
from rabtriever.search.texts import check_query

QUERY = "I forgot to take the meat out last night. My arms are weak and I can see the guests coming."


def _finite(value: Any) -> Any:
    """A JSON value without NaN and infinities, which JSON does not have, and with texts that are Unicode."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError as error:  # of which UnicodeEncodeError is one
        raise ValueError(f"a value is not JSON ({ascii(str(error))[1:60]}); send numbers and Unicode texts") from error
    return value


def _query(text: str) -> str:
    check_query(text, "the query")
    return text


Query = Annotated[str, AfterValidator(_query)]
Text = Annotated[str, AfterValidator(_finite)]
Scalar = str | int | float | bool
DocumentId = Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S+$")]


class Strict(BaseModel):
    """A request: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


class Filter(Strict):
    """Which documents may be found; all conditions must hold."""

    ids: list[str] | None = Field(None, max_length=100_000, description="Only documents with one of these ids.")
    fields: dict[str, list[Scalar]] = Field(
        {},
        max_length=100,
        description="For each field of the documents' metadata the values that it may have.",
        examples=[{"language": ["en", "de"]}],
    )


def _kind_of_threshold(value: Any) -> str:
    return "a word" if isinstance(value, str) else "a number"


Threshold = Annotated[
    Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), Tag("a number")]
    | Annotated[Literal["auto"], Tag("a word")],
    Discriminator(_kind_of_threshold),
]


class SearchRequest(Strict):
    """One query, or several."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"query": QUERY, "k": 3}, {"queries": [QUERY], "k": 1}]}
    )

    query: Query | None = Field(None, description="What is wanted, in the user's own words. Give this or `queries`.")
    queries: list[Query] | None = Field(None, min_length=1, description="Several queries, answered in one call.")
    k: int = Field(10, ge=1, strict=True, description="Documents wanted of each query; a smaller corpus gives fewer.")
    filter: Filter | None = Field(None, description="Which documents may be found.")
    threshold: Threshold | None = Field(
        None,
        description="Drops hits whose `relevance_score` is lower. `auto` is the threshold that the version was "
        "calibrated to.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> SearchRequest:
        if (self.query is None) == (self.queries is None):
            found = "neither query nor queries" if self.query is None else "both query and queries"
            raise ValueError(f"the request has {found}, expected one of them")
        return self


class SearchHit(BaseModel):
    """One document that was found."""

    id: str = Field(description="The document's id.")
    score: float = Field(description="The raw score, in nats of the teacher's answer; unbounded.")
    relevance_score: float = Field(ge=0, le=1, description="The calibrated probability that the document helps.")
    title: str = Field(description="The document's title; may be empty.")
    text: str = Field(description="The document's text.")
    metadata: dict[str, JsonValue] = Field({}, description="The document's metadata.")


class SearchResult(BaseModel):
    """What was found for one query, best first."""

    hits: list[SearchHit] = Field(description="The documents, best first.")
    low_confidence: bool | None = Field(
        description="Whether even the best document is below the version's threshold; null where it has none."
    )
    version: str | None = Field(description="Number of the version that answered; null for a plain folder.")
    model: str = Field(description="First 12 digits of the retriever's hash.")


class SearchResults(BaseModel):
    """What was found for several queries, in their order."""

    results: list[SearchResult] = Field(description="One result for each query.")


SearchResponse = SearchResult | SearchResults


class RerankText(BaseModel):
    """A document by its text."""

    model_config = ConfigDict(extra="ignore")

    text: Text = Field(description="Any text.")


class RerankId(Strict):
    """A document of the corpus."""

    id: str = Field(description="A document id of the corpus.")


def _kind_of_document(value: Any) -> str | None:
    if isinstance(value, str):
        return "a text"
    if isinstance(value, RerankText | RerankId):
        return "an id" if isinstance(value, RerankId) else "an object"
    return ("an id" if "id" in value else "an object") if isinstance(value, dict) else None


RerankDocument = Annotated[
    Annotated[Text, Tag("a text")] | Annotated[RerankId, Tag("an id")] | Annotated[RerankText, Tag("an object")],
    Discriminator(
        _kind_of_document,
        custom_error_type="document",
        custom_error_message="expected a text, an object with text, or an object with id",
    ),
]


class RerankRequest(BaseModel):
    """The form that Jina, Cohere, vLLM and their clients use; fields of other servers are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "rabtriever", "query": QUERY, "documents": ["A hammer.", "A camping knife."], "top_n": 1},
                {"query": QUERY, "documents": [{"id": "d426"}, {"text": "A hammer."}], "return_documents": True},
            ]
        },
    )

    model: str | None = Field(None, description="Any name: the version in service answers, and is named in the answer.")
    query: Query = Field(description="What is wanted.")
    documents: list[RerankDocument] = Field(
        min_length=1, description='Texts, as "..." or {"text": "..."}, or documents of the corpus, as {"id": "..."}.'
    )
    top_n: int | None = Field(None, ge=1, description="Documents wanted; all by default.")
    return_documents: bool = Field(False, description="Whether the answer repeats the texts.")


class RerankResult(BaseModel):
    """One document of a rerank request."""

    index: int = Field(description="The document's place in the request, from 0.")
    relevance_score: float = Field(ge=0, le=1, description="The calibrated probability that the document helps.")
    document: RerankText | None = Field(None, description="The text, where the request asked for it.")


class RerankResponse(BaseModel):
    """The documents of a rerank request, best first."""

    id: str = Field(description="Id of the request.")
    model: str = Field(description="Name and version that answered, such as `rabtriever@3`.")
    results: list[RerankResult] = Field(description="The documents, best first.")


class NewDocument(Strict):
    """A document to add, or to put in the place of the one with its id."""

    id: DocumentId = Field(description="Its id, without whitespace.")
    title: str = Field("", description="Its title; may be empty.")
    text: str = Field("", description="Its text; may be empty when there is a title.")
    metadata: Annotated[dict[str, JsonValue], AfterValidator(_finite)] = Field(
        {}, description="Any JSON object; `filter.fields` of a search looks at it."
    )

    @model_validator(mode="after")
    def _not_blank(self) -> NewDocument:
        _finite([self.id, self.title, self.text])
        if not (self.title.strip() or self.text.strip()):
            raise ValueError(f"document {ascii(self.id)[:60]} is blank; give it a title or a text")
        return self

    def document(self) -> Document:
        """The document."""
        return Document(self.id, self.title, self.text, self.metadata)


class PutRequest(Strict):
    """Documents to add or replace, all of them or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"documents": [{"id": "new-1", "title": "Head torch", "text": "Leaves both hands free."}]}]
        },
    )

    documents: list[NewDocument] = Field(min_length=1, description="The documents; ids may not repeat.")


class ChangeResponse(BaseModel):
    """What the corpus is after a change."""

    changed: int = Field(description="Documents that the request has put or removed.")
    documents: int = Field(description="Documents that a search looks at now.")
    version: str | None = Field(description="Number of the version in service; null for a plain folder.")


class Failure(BaseModel):
    """A version that did not take over."""

    version: str | None = Field(description="Its number; null for a plain folder, or where the look-up failed.")
    reason: str = Field(description="Why.")


class Status(BaseModel):
    """What the server is doing."""

    ready: bool = Field(description="Whether it answers queries.")
    version: str | None = Field(description="Number of the version in service; null for a plain folder.")
    model: str | None = Field(description="First 12 digits of the retriever's hash.")
    documents: int = Field(description="Documents that a search looks at.")
    failure: Failure | None = Field(description="The version that should be in service and is not; else null.")


class ErrorDetail(BaseModel):
    """Why a request was refused."""

    type: str = Field(description="One word for the status, such as `unprocessable`.")
    message: str = Field(description="What was found, what was expected, what to do.")
    request_id: str = Field(description="Id of the request, as in the header `X-Request-ID` and in the log.")


class ErrorResponse(BaseModel):
    """The one form of an error."""

    error: ErrorDetail
