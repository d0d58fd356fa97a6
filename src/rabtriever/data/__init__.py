"""Data: BEIR folders read and written, the data contract, splits, judgements as rows, and retrieval metrics.

It imports `core` alone, and neither a model nor torch.
"""
