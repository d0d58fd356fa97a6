"""The HTTP server of a retriever: search, rerank, documents, health and metrics.

It imports `core`, `data`, `lm`, `models`, `search`, `evaluation` and `ops`, and never Lightning, Prefect, DVC or
Great Expectations. Importing this package imports no web library.
"""
