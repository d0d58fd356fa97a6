"""Retrievers distilled from a generative reranker: load one, search, and explain a score.

>>> from rabtriever import Retriever
>>> retriever = Retriever.load("champion")  # doctest: +SKIP
>>> query = "I forgot to take the meat out last night. My arms are weak and I can see the guests coming."
>>> hits = retriever.search(query, k=5)  # doctest: +SKIP

Importing the package is cheap: a name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rabtriever.api import Hit, Retriever, evaluate

    __version__: str

__all__ = ["Hit", "Retriever", "__version__", "evaluate"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _version()
    elif name in __all__:
        from rabtriever import api

        value = getattr(api, name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("rabtriever")
    except PackageNotFoundError:  # run from a copy of the code, as a registered version is
        return "0.2.0"
