"""A toy retriever registered and promoted, for the tests of the command."""

from __future__ import annotations

from rabtriever.ops import registry, tracking
from tests.toy import dataset, per_query, write_retriever


def registered(quality: float) -> registry.RegisteredVersion:
    """Registers a toy retriever."""
    data = dataset()
    write_retriever("models/retriever", data, quality)
    evaluation = {"dataset": "toy", "systems": {"student": {"nDCG@10": 100 * quality}}}
    with tracking.stage_run("register", {}) as run:
        return registry.register(run, "models/retriever", data.hash, evaluation, per_query(data, quality))


def promoted(quality: float) -> registry.RegisteredVersion:
    """Registers and promotes a toy retriever."""
    version = registered(quality)
    registry.promote(version)
    return version
