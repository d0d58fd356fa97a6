"""Stage register: the retriever as a version of the registered model, with its lineage.

Run as `python -m flows.register`.
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.common import PREPARED, REPORTS, RETRIEVER, main
from rabtriever import registry
from rabtriever.artifacts import ArtifactMismatchError, read_json, read_manifest, write_json
from rabtriever.metrics import score_queries
from rabtriever.records import read_qrels, read_run
from rabtriever.tracking import stage_run


@flow(name="register")
def register() -> dict[str, Any]:
    """The hashes registered, after making sure that this retriever on this data is a version of the model.

    Raises:
        ArtifactMismatchError: reports/ is of another retriever, whose figures would be taken for this one's.
    """
    evaluation = read_json(REPORTS / "evaluation.json")
    present = read_manifest(RETRIEVER, "retriever", verify=False).hash
    if evaluation.get("retriever") != present:
        raise ArtifactMismatchError(
            f"{REPORTS}/evaluation.json is of the retriever {str(evaluation.get('retriever'))[:12]}, {RETRIEVER} is "
            f"{present[:12]}; evaluate this one first (dvc repro, or python -m flows.evaluate)"
        )
    data_hash = read_json(REPORTS / "data.json")["hash"]
    per_query = score_queries(read_qrels(PREPARED / "qrels/test.tsv"), read_run(REPORTS / "runs/student.trec"))
    with stage_run("register", {}) as run:
        version = registry.register(run, RETRIEVER, data_hash, evaluation, per_query)
        for name, values in evaluation["systems"].items():
            run.log_metrics({f"{name}/{metric}": value for metric, value in values.items() if value is not None})
    # The version's number is this machine's own affair: equal inputs must give an equal file.
    registration = {"model": registry.MODEL, "retriever_hash": version.retriever_hash, "data_hash": data_hash}
    write_json(REPORTS / "registration.json", registration)
    print(f"register: {registry.MODEL} {version}, retriever {version.retriever_hash[:12]}")
    return registration


if __name__ == "__main__":
    main(register)
