"""The retriever as an MLflow pyfunc in the "models from code" form: this file and the artefact folder are the model.

Nothing is pickled: MLflow stores this file, a copy of the package and the retriever folder (safetensors, numpy and text
files), and its own server runs this file when the model is loaded. No other part of the project loads it.

What a request may hold is bounded before anything of it is tokenised. A request that is refused gets status 400.
"""

from __future__ import annotations

import logging
import math
import numbers
import re
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PyFuncModel, PythonModel, PythonModelContext

DEFAULT_K = 10
MOST_DOCUMENTS = 1_000  # of one query
MOST_QUERIES = 1_000  # of one request
MOST_CHARACTERS = 20_000  # of one query; of what it says, a prompt keeps some hundred tokens
MOST_IN_ALL = 1_000_000  # characters of all queries of one request
# what MLflow warns of when it drops a column or a parameter, before the model sees the rest
_DROPPED = re.compile(r"(?P<what>extra inputs|Unrecognized params)[^\[]*\[(?P<names>[^\]]*)\]")
_EXPECTED = {
    "extra inputs": ("column", "the column 'query' and optionally 'k'"),
    "Unrecognized params": ("parameter", "'k'"),
}


class RetrieverModel(PythonModel):
    """Answers rows of `query` with ranked documents."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the retriever folder, checking its manifest.

        Raises:
            ArtifactMismatchError: when the folder was damaged after it was registered.
        """
        from rabtriever.search.retriever import Retriever

        self.retriever = Retriever.load(context.artifacts["retriever"])
        _refuse_what_is_dropped()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Returns one row per query: the query, and its documents, best first.

        Args:
            context: unused.
            model_input: column `query`; optional column `k`, documents wanted for each row, null for the default.
            params: `k`, documents wanted where a row does not say; 10 by default.

        Returns:
            columns `query` and `hits`, a list of {doc_id, score, title, text}, score descending.

        Raises:
            MlflowException: a query is missing, blank or too long, there are too many of them, or a `k` is not a whole
                number from 1 to 1,000. MLflow's server answers with status 400 and the sentence.
        """
        try:
            queries = _checked_queries(list(model_input["query"]))
            default = _wanted((params or {}).get("k"), DEFAULT_K)
            wanted = [default] * len(queries)
            if "k" in model_input:
                wanted = [_wanted(k, default) for k in model_input["k"]]
            found = self.retriever.search(queries, k=max(wanted, default=1))
        except (TypeError, ValueError) as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        hits = [[_as_record(hit) for hit in ranked[:k]] for ranked, k in zip(found, wanted, strict=True)]
        return pd.DataFrame({"query": queries, "hits": hits})


def _checked_queries(queries: Sequence[Any]) -> list[str]:
    """The queries of a request, each a text that is not blank, within the limits."""
    from rabtriever.search.texts import check_query

    if len(queries) > MOST_QUERIES:
        raise ValueError(f"the request has {len(queries):,} queries, expected at most {MOST_QUERIES:,}; send several")
    for number, query in enumerate(queries):
        if _is_missing(query):
            raise ValueError(f"query {number} is missing, expected a text")
        if not isinstance(query, str):
            raise ValueError(f"query {number} is {str(query)[:60]!r} ({type(query).__name__}), expected a text")
        if len(query) > MOST_CHARACTERS:
            raise ValueError(
                f"query {number} has {len(query):,} characters, expected at most {MOST_CHARACTERS:,}; shorten it"
            )
        check_query(query, f"query {number}")
    if (total := sum(map(len, queries))) > MOST_IN_ALL:
        raise ValueError(
            f"the queries have {total:,} characters in all, expected at most {MOST_IN_ALL:,}; send several requests"
        )
    return list(queries)


def _wanted(k: Any, default: int) -> int:
    """The number of documents that a request asks for; the default where it leaves that out."""
    if _is_missing(k):
        return default
    if isinstance(k, bool) or not isinstance(k, numbers.Real) or not math.isfinite(k) or k != math.floor(k):
        raise ValueError(f"k is {str(k)[:60]!r}, expected a whole number from 1 to {MOST_DOCUMENTS:,}")
    if not 1 <= k <= MOST_DOCUMENTS:
        raise ValueError(f"k is {int(k)}; ask for at least 1 and at most {MOST_DOCUMENTS:,} documents")
    return int(k)


def _is_missing(value: Any) -> bool:
    """Whether a row leaves a value out, or has null there: a table then has None or NaN."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


class _Refusal(logging.Filter):
    """Makes MLflow's warning that it drops a column or a parameter an error, for a model of this file alone.

    The model sees what is left and nothing of what was dropped, so a misspelt name would be ignored.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown; it is where it warns of something else.

        Raises:
            MlflowException: it warns that something in a request to a model of this file was dropped.
        """
        found = _DROPPED.search(record.getMessage())
        if found is None or not _asks_this_model():
            return True
        what, expected = _EXPECTED[found["what"]]
        raise MlflowException.invalid_parameter_value(
            f"the request has the unknown {what} {found['names']}, expected {expected}; correct the name"
        )


def _refuse_what_is_dropped() -> None:
    logger = logging.getLogger("mlflow.models.utils")
    logger.setLevel(logging.WARNING)
    if not any(isinstance(present, _Refusal) for present in logger.filters):
        logger.addFilter(_Refusal())


def _asks_this_model() -> bool:
    """Whether the call in progress is a request to a model of this file."""
    frame = sys._getframe()
    while frame is not None:
        asked = frame.f_locals.get("self")
        if isinstance(asked, PyFuncModel):
            return isinstance(getattr(asked._model_impl, "python_model", None), RetrieverModel)
        frame = frame.f_back
    return False


def _as_record(hit: Any) -> dict[str, Any]:
    return {"doc_id": hit.doc_id, "score": float(hit.score), "title": hit.title, "text": hit.text}


set_model(RetrieverModel())
