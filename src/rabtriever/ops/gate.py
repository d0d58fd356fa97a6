"""The gate between registered and promoted: gathers the numbers, has `promotion.decide` decide, records and acts."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, read_manifest, write_json
from rabtriever.core.settings import load_params
from rabtriever.core.stages import Paths
from rabtriever.data.beir_io import load_dataset
from rabtriever.data.identical_ids import ranked
from rabtriever.data.metrics import score_queries
from rabtriever.ops import registry
from rabtriever.ops.answering import format_of, is_known
from rabtriever.ops.promotion import Decision, GateParams, decide
from rabtriever.ops.registry import PerQuery, RegisteredVersion

_PATHS = Paths()
_DEPTH = 100  # documents ranked per query, the largest cut-off of the metrics


def gate_params() -> GateParams:
    """The section `promote` of params.yaml."""
    return load_params(GateParams, "promote", _PATHS.params)


def challenger() -> RegisteredVersion | None:
    """The version of the retriever in models/retriever and the code here, None when that is not registered here."""
    if not (_PATHS.retriever.is_dir() and (_PATHS.reports / "data.json").is_file()):
        return None
    return registry.find(read_manifest(_PATHS.retriever, "retriever", verify=False).hash, _data_hash())


def settled(version: RegisteredVersion | None) -> bool:
    """Whether nothing is left to decide on a version.

    It is when the version is the champion, when somebody has withdrawn it, or when it was last refused against the
    present champion and with the present limits: it gets another hearing only when what it was measured against has
    changed. One that did not answer is asked again, as a store may have been out of reach, and so is one that passed
    and is not champion, as a run may have been killed in between.
    """
    if version is None:
        return False
    champion = registry.champion()
    if (champion is not None and champion.version == version.version) or registry.is_withdrawn(version):
        return True
    last = registry.last_decision(version)
    present = None if champion is None else champion.version
    if last is None or last.get("fault") or last["promoted"]:
        return False
    return last["champion"] == present and last["gate"] == asdict(gate_params())


def judge(version: RegisteredVersion) -> dict[str, Any]:
    """What was decided on a challenger: recorded on the version and in reports/promotion.json, and acted on.

    Raises:
        ArtifactMismatchError: the champion cannot be evaluated on the new data, or reports/gate.json is of
            another retriever; nothing was changed.
        FileNotFoundError: it has lost its files; nothing was changed.
        BlockingIOError: another run has changed the champion meanwhile; nothing was changed.
    """
    best, biencoder = _best(version), _biencoder(version)  # first: refuses in seconds what is not measured
    gate, champion, fault = gate_params(), registry.champion(), _fault(version)
    against = _champion_scores(champion, version) if champion is not None and is_known(champion.tags) else None
    bars = {} if best is None else {f"version {best['version']}, the best of these data": best["ndcg_10"]}
    bars["the bi-encoder of the same run"] = biencoder
    decision = decide(registry.per_query(version), against, gate, fault, bars)
    if champion is not None and not is_known(champion.tags):
        told = f"{champion} has format {format_of(champion.tags)}, not answered here: judged as a first version"
        decision = replace(decision, reason=f"{told}; {decision.reason}")
    record = _record(version, champion, gate, decision, fault)
    record |= {"best": best, "biencoder_ndcg_10": biencoder}
    now = registry.champion()
    if (now and now.version) != record["champion"]:  # a registry may be shared, and the evaluation takes minutes
        raise BlockingIOError(f"the champion has become {now} while {version} was judged; run again to compare the two")
    registry.record_decision(version, record)
    write_json(_PATHS.reports / "promotion.json", record)
    if decision.promote:  # last: killed before it, the next run decides again; after it, nothing would be recorded
        registry.promote(version)
    return record


def _data_hash() -> str:
    return read_json(_PATHS.reports / "data.json")["hash"]


def _champion_scores(champion: RegisteredVersion, challenger: RegisteredVersion) -> PerQuery:
    """The champion's metrics per dev query; on other data than it was registered with, its weights are tried first."""
    if champion.data_hash == _data_hash():
        return _stored_scores(champion, challenger)
    print(f"gate: evaluating the champion, {champion}, on the new data", flush=True)
    from rabtriever.search.retriever import Retriever

    dataset = load_dataset(_PATHS.prepared)
    try:
        there = Retriever.load(registry.local_folder(champion)).reindexed(dataset.corpus)
        queries = dataset.split_queries("dev")
        run = ranked(lambda depth: there.rank(queries, k=depth), dataset, queries, _DEPTH)
    except (ArtifactMismatchError, FileNotFoundError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if type(error).__name__ == "OutOfMemoryError":  # of torch: no fault of the champion's
            raise
        advice = "put an earlier version back with `rabtriever rollback`, then run again"
        raise ArtifactMismatchError(
            f"the champion, {champion}, cannot be evaluated: {type(error).__name__}: {error}; {advice}"
        ) from error
    return score_queries(dataset.qrels["dev"], run)


def _stored_scores(champion: RegisteredVersion, challenger: RegisteredVersion) -> PerQuery:
    """What the champion was registered with: the same weights served by other code may rank worse."""
    try:
        return registry.per_query(champion)
    except FileNotFoundError as error:
        if champion.retriever_hash == challenger.retriever_hash:
            print(f"gate: the champion, {champion}, has lost its files; {challenger} is the same retriever", flush=True)
            return registry.per_query(challenger)
        advice = "put a version that has its files into service (rabtriever rollback --to N), then run again"
        raise FileNotFoundError(f"the champion, {champion}, has lost its files: {error}; {advice}") from error


def _best(challenger: RegisteredVersion) -> dict[str, Any] | None:
    """Version and nDCG@10 (per cent) of the best one promoted on the challenger's data; withdrawn ones do not count."""
    others = [
        {"version": one.version, "ndcg_10": decision["ndcg_10"]}
        for one in registry.versions()
        if one.data_hash == challenger.data_hash and one.version != challenger.version and is_known(one.tags)
        if not registry.is_withdrawn(one) and (decision := registry.last_decision(one)) and decision["promoted"]
    ]
    return max(others, key=lambda one: one["ndcg_10"], default=None)


def _biencoder(challenger: RegisteredVersion) -> float:
    """The nDCG@10 (per cent) of the bi-encoder of the challenger's run on the same dev queries."""
    path = _PATHS.reports / "gate.json"
    measured = read_json(path)
    if measured.get("retriever") != challenger.retriever_hash:
        raise ArtifactMismatchError(
            f"{path} is of the retriever {str(measured.get('retriever'))[:12]}, {challenger} is "
            f"{challenger.retriever_hash[:12]}; evaluate this one first (dvc repro, or python -m flows.evaluate)"
        )
    return float(measured["biencoder_ndcg_10"])


def _fault(version: RegisteredVersion) -> str | None:
    try:
        registry.check_answers(version)
    except (ArtifactMismatchError, FileNotFoundError) as error:
        return str(error)
    return None


def _record(
    version: RegisteredVersion,
    champion: RegisteredVersion | None,
    gate: GateParams,
    decision: Decision,
    fault: str | None,
) -> dict[str, Any]:
    interval = decision.interval
    return {
        "version": version.version,
        "promoted": decision.promote,
        "reason": decision.reason,
        "fault": fault,
        "champion": None if champion is None else champion.version,
        "ndcg_10": decision.ndcg_10,
        "recall_100": decision.recall_100,
        "champion_ndcg_10": decision.champion_ndcg_10,
        "interval": None if interval is None else interval._asdict(),
        "gate": asdict(gate),
        "retriever_hash": version.retriever_hash,
        "data_hash": version.data_hash,
        "decided_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
