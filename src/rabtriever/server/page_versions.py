"""The view of versions: what the gate decided on each, what had changed, and which queries rank worse.

MLflow is imported when the view is asked for: it takes seconds.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.server.page_data import METRIC
from rabtriever.server.project import NothingHere, Project

if TYPE_CHECKING:
    from rabtriever.ops.registry import RegisteredVersion

SHOWN = 30  # versions, the newest
_REGRESSED = 10  # queries of a version that lost most
_RUNS = 2_000  # runs of stages that are looked through for settings
_PARENT = "parent."


def versions(project: Project) -> dict[str, Any]:
    """The newest versions of the registry, the newest first, with what `_entry` has of each.

    Raises:
        NothingHere: there is no registry, or MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise NothingHere("The versions need MLflow, which is not installed; install rabtriever[serve].")
    from rabtriever.ops import registry, tracking

    try:
        tracking.require()
        found = registry.versions()
        aliases = {name: registry.get(name) for name in (registry.CHAMPION, registry.PREVIOUS)}
    except (FileNotFoundError, ConnectionError) as error:
        raise NothingHere(f"There is no registry to show: {error}.") from error
    known, settings, texts = {one.version: one for one in found}, _settings(), _texts(project)
    named = {name: version.version for name, version in aliases.items() if version is not None}
    entries = [_entry(one, _base(one, found, known), settings, texts) for one in found[:SHOWN]]
    for entry in entries:
        entry["aliases"] = [name for name, version in named.items() if version == entry["version"]]
    return {"versions": entries, "total": len(found), **named}


def _entry(
    version: RegisteredVersion,
    base: RegisteredVersion | None,
    settings: list[tuple[int, str, dict[str, str]]],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """A version as the page shows it; `base` is the one that it was compared with."""
    from rabtriever.ops import by_hand, registry

    decision = registry.last_decision(version) or {}
    shown = ("promoted", "reason", "fault", "decided_at", "ndcg_10", "champion_ndcg_10", "recall_100", "interval")
    return {
        "version": version.version,
        "dataset": version.tags.get("dataset", ""),
        "quality": decision.get("ndcg_10", _number(version.tags.get("student.ndcg_10"))),
        "decision": {name: decision.get(name) for name in shown} if decision else None,
        "tolerance": decision.get("gate", {}).get("tolerance"),
        "confidence": decision.get("gate", {}).get("confidence"),
        "biencoder": decision.get("biencoder_ndcg_10"),
        "withdrawn": registry.is_withdrawn(version),
        "hashes": {"retriever": version.retriever_hash, "data": version.data_hash, "code": _code(version)},
        "by_hand": by_hand.history(version),
        "base": None if base is None else base.version,
        "changed": None if base is None else _changes(version, base, settings),
        "regressed": None if base is None else _regressed(version, base, texts),
    }


def _base(
    version: RegisteredVersion, newest_first: list[RegisteredVersion], known: Mapping[str, RegisteredVersion]
) -> RegisteredVersion | None:
    """The champion that the gate compared a version with; the version before where it compared with none."""
    from rabtriever.ops import registry

    against = (registry.last_decision(version) or {}).get("champion")
    if against in known and against != version.version:
        return known[against]
    older = [one for one in newest_first if int(one.version) < int(version.version)]
    return older[0] if older else None


def _changes(
    version: RegisteredVersion, base: RegisteredVersion, settings: list[tuple[int, str, dict[str, str]]]
) -> dict[str, Any]:
    """Whether data and code differ, which artefacts do, and the settings with their values before and after."""
    names = sorted({name for one in (version, base) for name in one.tags if name.startswith(_PARENT)})
    before, after = (_in_force(one, settings) for one in (base, version))
    changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    return {
        "data": version.data_hash != base.data_hash,
        "code": _code(version) != _code(base),
        "artefacts": [name.removeprefix(_PARENT) for name in names if version.tags.get(name) != base.tags.get(name)],
        "settings": [{"name": name, "before": before.get(name), "after": after.get(name)} for name in changed],
    }


def _settings() -> list[tuple[int, str, dict[str, str]]]:
    """When each stage ran (milliseconds), its name, and its settings, the oldest first."""
    from rabtriever.ops import tracking

    client = tracking.client()
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    if experiment is None:
        return []
    condition = "attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], condition, max_results=_RUNS, order_by=["start_time DESC"])
    named = [(run.info.start_time, run.data.tags.get("stage", ""), dict(run.data.params)) for run in runs]
    return [one for one in reversed(named) if one[1]]


def _in_force(version: RegisteredVersion, settings: list[tuple[int, str, dict[str, str]]]) -> dict[str, str]:
    """The settings that each stage last ran with before a version was registered.

    A stage that was taken from the cache has no run of its own, so these may be newer than what the cache used.
    """
    from rabtriever.ops import tracking

    registered = tracking.client().get_run(version.run_id).info.start_time if version.run_id else 0
    found: dict[str, str] = {}
    for started, _, params in settings:
        if started <= registered:
            found |= params
    return found


def _regressed(version: RegisteredVersion, base: RegisteredVersion, texts: Mapping[str, str]) -> dict[str, Any] | None:
    """The dev queries that lost most nDCG@10 against another version; None where the two have different queries."""
    from rabtriever.ops import registry

    try:
        ours, theirs = registry.per_query(version), registry.per_query(base)
    except (FileNotFoundError, ArtifactMismatchError) as error:
        return {"missing": str(error)}
    if version.data_hash != base.data_hash or set(ours) != set(theirs):
        return {"missing": f"version {base.version} was registered with other data"}
    lost = {query_id: ours[query_id][METRIC] - theirs[query_id][METRIC] for query_id in ours}
    worst = sorted((query_id for query_id in lost if lost[query_id] < 0), key=lambda one: (lost[one], one))
    rows = [
        {
            "id": query_id,
            "text": texts.get(query_id),
            "before": theirs[query_id][METRIC],
            "after": ours[query_id][METRIC],
        }
        for query_id in worst[:_REGRESSED]
    ]
    better = sum(difference > 0 for difference in lost.values())
    return {"worse": len(worst), "better": better, "queries": len(lost), "rows": rows}


def _texts(project: Project) -> dict[str, str]:
    try:
        return project.finished().dataset.queries
    except NothingHere:
        return {}


def _code(version: RegisteredVersion) -> str:
    from rabtriever.ops import registry

    return version.tags.get(registry.CODE_TAG, "")


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)
