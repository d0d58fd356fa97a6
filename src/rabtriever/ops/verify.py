"""Whether store and champion are as they were left: asked before a run computes anything, or says that all is well."""

from __future__ import annotations

from pathlib import Path

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest
from rabtriever.core.stages import Paths
from rabtriever.ops import gate, local_store, registry, tracking
from rabtriever.ops.answering import format_of, is_known

_PATHS = Paths()
_DEFAULT_STORE = Path("mlruns/mlflow.db")


def check_files() -> None:
    """Makes sure that the store is not an empty one in the place of another, and that the champion has its files.

    Reads and hashes the champion's files, which takes no model into memory. A champion that has lost its files passes
    where its retriever has been registered again, so that the gate can put that version into service.

    Raises:
        FileNotFoundError: the store is empty, and there are artefacts of runs or a decision that it does not know.
        ArtifactMismatchError: files of the champion are missing or changed.
        ValueError: the path of the working folder cannot be part of a database's address.
        ConnectionError: the store cannot be read.
    """
    _check_store()
    champion = _champion()
    if champion is None:
        return
    if not is_known(champion.tags):
        found = format_of(champion.tags)
        print(f"{champion} has format {found}, which is not answered here; make run trains a new one", flush=True)
        return
    try:
        read_manifest(registry.local_folder(champion), "retriever")
    except (FileNotFoundError, ArtifactMismatchError) as error:
        successor = gate.challenger()
        if _replaces(successor, champion):
            print(f"{champion} is damaged; {successor} is the same retriever, and goes before the gate", flush=True)
            return
        raise ArtifactMismatchError(f"the champion, {champion}, is damaged: {error}; {_advice(champion)}") from error


def check_answer() -> None:
    """Makes sure that the champion answers a question.

    Raises:
        ArtifactMismatchError: it does not.
    """
    champion = _champion()
    if champion is not None and is_known(champion.tags):
        registry.check_answers(champion)


def _champion() -> registry.RegisteredVersion | None:
    """The champion; asking for it creates no store."""
    database = local_store.database(tracking.tracking_uri())
    return None if database is not None and not database.exists() else registry.champion()


def _check_store() -> None:
    uri = tracking.tracking_uri()
    database = local_store.database(uri)
    if database is None:
        return
    with tracking.store_errors():
        content = local_store.content(database)
    if content.versions:
        return
    traces = _unknown_runs(database.parent / local_store.ARTIFACTS, content.runs)
    promotion = _PATHS.reports / "promotion.json"
    if database == _DEFAULT_STORE.resolve() and promotion.exists():
        traces.append(promotion)
    if not traces:
        return
    shown, more = ", ".join(map(str, traces[:2])), len(traces) - 2
    others = f" and {more} more" if more > 0 else ""
    what = "has no version" if database.exists() else "is missing"
    raise FileNotFoundError(
        f"the store {database} {what}, expected the one that {shown}{others} came from; put a copy back (rabtriever "
        "restore FILE --force), set MLFLOW_TRACKING_URI if it is elsewhere, or, to start with an empty registry, "
        f"remove {' and '.join(sorted({str(_removable(path, database)) for path in traces}))}"
    )


def _unknown_runs(artifacts: Path, known: frozenset[str]) -> list[Path]:
    """Folders of runs that a store does not know."""
    if not artifacts.is_dir():
        return []
    return sorted(path for path in artifacts.iterdir() if (path / "artifacts").is_dir() and path.name not in known)


def _removable(trace: Path, database: Path) -> Path:
    """What to remove for a trace to be gone."""
    artifacts = database.parent / local_store.ARTIFACTS
    return artifacts if trace.parent == artifacts else trace


def _replaces(version: registry.RegisteredVersion | None, champion: registry.RegisteredVersion) -> bool:
    """Whether a version is the champion's retriever, undamaged, under another number."""
    if version is None or version.version == champion.version or version.retriever_hash != champion.retriever_hash:
        return False
    try:
        read_manifest(registry.local_folder(version), "retriever")
    except (FileNotFoundError, ArtifactMismatchError):
        return False
    return True


def _advice(champion: registry.RegisteredVersion) -> str:
    try:
        here = read_manifest(_PATHS.retriever, "retriever").hash
    except (FileNotFoundError, ArtifactMismatchError):
        here = None
    if here == champion.retriever_hash:
        return f"{_PATHS.retriever} is the same retriever: run python -m flows.register, then make run"
    return (
        "put another version into service (rabtriever rollback --to N), or restore a backup (rabtriever restore FILE)"
    )
