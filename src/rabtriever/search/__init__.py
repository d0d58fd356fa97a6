"""All that answering a query needs: the scorer, the scan, the shortlist, BM25, and the retriever's folder.

It imports `core`, `data`, `lm` and `models`, and never Lightning, Prefect, DVC, MLflow or Great Expectations.
"""
