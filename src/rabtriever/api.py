"""The public interface: a retriever by its name in the registry or its folder, and its metrics on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from rabtriever.evaluation.folder import evaluate
from rabtriever.ops.lookup import find_retriever
from rabtriever.search.explanation import Explanation
from rabtriever.search.retriever import Hit
from rabtriever.search.retriever import Retriever as FolderRetriever

__all__ = ["Explanation", "Hit", "Retriever", "evaluate"]


class Retriever(FolderRetriever):
    """A retriever over one corpus, ready to search.

    >>> retriever = Retriever.load("champion")  # doctest: +SKIP
    >>> query = "I forgot to take the meat out last night. My arms are weak and I can see the guests coming."
    >>> retriever.search(query, k=5)  # doctest: +SKIP
    """

    @classmethod
    def load(cls, name: str | Path = "champion") -> Self:
        """Opens a retriever after verifying every file of it. The code that is installed here answers.

        Args:
            name: an alias (`champion`, `previous`), a version number (`3`), a URI (`models:/rabtriever@champion`,
                `models:/rabtriever/3`), or the path of a retriever folder. The registry is the one that
                MLFLOW_TRACKING_URI names, else `mlruns/mlflow.db` below the working folder.

        Raises:
            FileNotFoundError: there is no such folder or registry, or the version has lost its files.
            ValueError: the registry has no such version.
            ArtifactMismatchError: a file is missing, changed or foreign, or settings are of other code.
            ModuleNotFoundError: the registry is on a server, and MLflow is not installed (`rabtriever[ops]`).
        """
        found = find_retriever(name)
        retriever = super().load(found.folder)
        retriever.version = found.version
        return retriever
