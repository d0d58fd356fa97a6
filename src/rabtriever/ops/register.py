"""Stage register: the retriever as a version of the registered model, with its lineage."""

from __future__ import annotations

from typing import Any, NamedTuple

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, read_manifest, write_json
from rabtriever.core.stages import Paths
from rabtriever.ops import registry, tracking


class Sections(NamedTuple):
    """The stage reads nothing of params.yaml."""


def run(sections: Sections, paths: Paths, tracker: tracking.StageRun) -> dict[str, Any]:
    """The hashes registered, after making sure that this retriever on this data is a version of the model.

    Raises:
        ArtifactMismatchError: reports/ is of another retriever, whose figures would be taken for this one's.
    """
    evaluation, measured = (read_json(paths.reports / name) for name in ("evaluation.json", "gate.json"))
    present = read_manifest(paths.retriever, "retriever", verify=False).hash
    for name, found in (("evaluation.json", evaluation), ("gate.json", measured)):
        if found.get("retriever") != present:
            raise ArtifactMismatchError(
                f"{paths.reports / name} is of the retriever {str(found.get('retriever'))[:12]}, "
                f"{paths.retriever} is {present[:12]}; evaluate this one first (dvc repro, or python -m flows.evaluate)"
            )
    data_hash = read_json(paths.reports / "data.json")["hash"]
    version = registry.register(tracker, paths.retriever, data_hash, evaluation, measured["per_query"])
    for name, values in evaluation["systems"].items():
        tracker.log_metrics({f"{name}/{metric}": value for metric, value in values.items() if value is not None})
    # The version's number is this machine's own affair: equal inputs must give an equal file.
    registration = {"model": registry.MODEL, "retriever_hash": version.retriever_hash, "data_hash": data_hash}
    write_json(paths.reports / "registration.json", registration)
    print(f"register: {registry.MODEL} {version}, retriever {version.retriever_hash[:12]}")
    return registration
