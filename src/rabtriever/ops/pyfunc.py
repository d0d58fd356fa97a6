"""The retriever as an MLflow pyfunc in the "models from code" form: this file and the artefact folder are the model.

Nothing is pickled: MLflow stores this file, a copy of the package and the retriever folder (safetensors, numpy and text
files), and runs this file when the model is loaded. Only this file and the two that keep the registry know MLflow.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

DEFAULT_K = 10


class RetrieverModel(PythonModel):
    """Answers rows of `query` with ranked documents."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the retriever folder, checking its manifest.

        Raises:
            ArtifactMismatchError: when the folder was damaged after it was registered.
        """
        from rabtriever.search.retriever import Retriever

        self.retriever = Retriever.load(context.artifacts["retriever"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Returns one row per query: the query, and its documents, best first.

        Args:
            context: unused.
            model_input: column `query`; optional column `k`, documents wanted for each row.
            params: `k`, documents wanted where there is no such column; 10 by default.

        Returns:
            columns `query` and `hits`, a list of {doc_id, score, title, text}, score descending.

        Raises:
            ValueError: a query is missing or blank, or a `k` is below 1.
        """
        queries = list(model_input["query"])
        if unfit := [query for query in queries if not isinstance(query, str)]:
            raise ValueError(f"a query is {unfit[0]!r}, expected a text")
        default = int((params or {}).get("k", DEFAULT_K))
        wanted = [default] * len(queries)
        if "k" in model_input:
            wanted = [int(k) for k in model_input["k"]]
        if any(k < 1 for k in wanted):
            raise ValueError(f"k is {min(wanted)}; ask for at least 1 document")
        found = self.retriever.search(queries, k=max(wanted, default=1))
        hits = [[_as_record(hit) for hit in ranked[:k]] for ranked, k in zip(found, wanted, strict=True)]
        return pd.DataFrame({"query": queries, "hits": hits})


def _as_record(hit: Any) -> dict[str, Any]:
    return {"doc_id": hit.doc_id, "score": float(hit.score), "title": hit.title, "text": hit.text}


set_model(RetrieverModel())
