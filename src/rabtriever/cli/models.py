"""`rabtriever models` and `rabtriever rollback`: the versions in the registry, and which one is in service."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rabtriever.cli.opening import told_when_slow
from rabtriever.ops.terminal import one_line

_METRICS = ("nDCG@10", "MRR@10", "R@10", "R@100")
_CONFIDENCE, _SAMPLES, _SEED = 0.95, 10_000, 13


def list_versions(parsed: argparse.Namespace) -> None:
    """Lists all versions, the newest first."""
    registry = _registry()
    with told_when_slow("reading the registry"):
        found = registry.versions()
        aliases = {name: registry.get(name) for name in (registry.CHAMPION, registry.PREVIOUS)}
    if not found:
        print("no version is registered; run make run to train one", file=sys.stderr)
        return
    print(f"{'version':<8} {'in service':<10} {'gate':<9} {'nDCG@10':>7}  {'data':<20} retriever")
    for one in found:
        named = [name for name, version in aliases.items() if version and version.version == one.version]
        service = ", ".join(named) or ("withdrawn" if registry.is_withdrawn(one) else "")
        quality, data = one.tags.get("student.ndcg_10", ""), one.tags.get("dataset", "")
        verdict, retriever = one.tags.get("verdict", ""), one.retriever_hash[:12]
        print(one_line(f"{one.version:<8} {service:<10} {verdict:<9} {quality:>7}  {data:<20} {retriever}"))


def show(parsed: argparse.Namespace) -> None:
    """Shows everything recorded on a version."""
    registry = _registry()
    with told_when_slow("reading the registry"):
        version = _get(registry, parsed.version)
    print(f"{'version':<24} {version.version}\n{'run':<24} {version.run_id}")
    print(f"{'folder':<24} {registry.local_folder(version)}")
    for name, value in sorted(version.tags.items()):
        if name != "decision":
            print(one_line(f"{name:<24} {value}"))
    decision = registry.last_decision(version)
    if decision is not None:
        print(f"{'decided at':<24} {decision['decided_at']}")


def compare(parsed: argparse.Namespace) -> None:
    """Shows the metrics of two versions and their difference, with its interval over the test queries."""
    from rabtriever.data.metrics import paired_bootstrap, summarise

    registry = _registry()
    with told_when_slow("reading the registry"):
        pair = [_get(registry, name) for name in (parsed.first, parsed.second)]
        first, second = (registry.per_query(version) for version in pair)
    if pair[0].data_hash != pair[1].data_hash:
        raise ValueError(
            f"{pair[0]} was evaluated on data {pair[0].data_hash}, {pair[1]} on {pair[1].data_hash}; expected the same "
            "data; measure both with rabtriever evaluate FOLDER --model VERSION"
        )
    means = summarise(first), summarise(second)
    columns = (str(pair[0]), str(pair[1]), "difference", f"{100 * _CONFIDENCE:.0f} % interval")
    print(f"{'':<10}" + "".join(f"{name:>18}" for name in columns))
    for metric in _METRICS:
        values = [{query: scores[metric] for query, scores in one.items()} for one in (second, first)]
        found = paired_bootstrap(*values, samples=_SAMPLES, seed=_SEED, confidence=_CONFIDENCE)
        interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        mean = f"{means[0][metric]:18.2f}{means[1][metric]:18.2f}{100 * found.mean:+18.2f}"
        print(f"{metric:<10}{mean}{interval:>18}")


def promote(parsed: argparse.Namespace) -> None:
    """Makes a version the champion after it has answered a question."""
    registry = _registry()
    version, before = _get(registry, parsed.version), registry.champion()
    if before is not None and before.version == version.version:
        raise ValueError(f"{version} is the champion already; name another one")
    print("loading the version and asking it a question", file=sys.stderr)
    registry.check_answers(version)
    registry.promote(version)
    print(f"champion is {version} now{_way_back(registry)}")


def rollback(parsed: argparse.Namespace) -> None:
    """Puts an earlier version back into service."""
    registry = _registry()
    print("loading the version and asking it a question", file=sys.stderr)
    now, _ = registry.rollback(parsed.to)
    print(f"champion is {now} now{_way_back(registry)}")


def _way_back(registry: Any) -> str:
    previous = registry.get(registry.PREVIOUS)  # not always the champion before: that may be the same retriever
    return f"; {previous} is previous, and rabtriever rollback would put it back" if previous else ""


def _registry() -> Any:
    """The module that keeps the registry, once there is a store."""
    from rabtriever.ops import registry, tracking

    tracking.require()
    return registry


def _get(registry: Any, name: str) -> Any:
    version = registry.get(name)
    if version is None:
        raise ValueError(f"the registry has no {name!r}; name one that rabtriever models list shows")
    return version
