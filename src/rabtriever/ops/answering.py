"""A registered version as data: what is checked before the installed code opens it.

Whoever can write to a registry can put anything into a version. So nothing that a version carries is executed here: its
retriever folder is opened by the installed code, and only where each file of it is of a kind that holds data alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rabtriever.core.artifacts import MANIFEST_NAME, ArtifactMismatchError, Manifest, read_json, read_manifest

FORMAT = 2  # of the versions registered here: what the retriever folder holds, and which tags say so
FORMAT_TAG, HASH_TAG, PATH_TAG = "format", "retriever_hash", "artifact_path"
ARTIFACTS = "artifacts"  # folder of a pyfunc that holds the retriever folder, and nothing beside it
_PATH = re.compile(r"model/artifacts/([A-Za-z0-9_-][A-Za-z0-9_.-]*)")
_DATA = {".json", ".jsonl", ".safetensors", ".faiss", ".txt", ".jinja", ".model", ".md"}
# a file and settings by which transformers would load something from elsewhere
_LEADS_ELSEWHERE = {"adapter_config.json"}
_KERNELS = {"attn_implementation", "experts_implementation"}


def trusted_folder(model: Path, tags: Mapping[str, str], name: str) -> Path:
    """The retriever folder of a version, after checking that it holds data alone and is the one that was registered.

    The bytes of the files are not read; `Retriever.load` compares them with the manifest.

    Args:
        model: folder of the version's pyfunc, on this machine.
        tags: tags of the version.
        name: what messages call the version, such as "version 3".

    Raises:
        FileNotFoundError: the folder is not there, or has no manifest.
        ArtifactMismatchError: the version is not trusted; says why.
    """
    inside = artifact_name(tags, name)
    folder = model / ARTIFACTS / inside
    if not folder.exists():
        return folder
    if folder.resolve() != model.resolve() / ARTIFACTS / inside:
        raise not_trusted(name, f"{tags[PATH_TAG]} is a link to {folder.resolve()}, expected a folder")
    if beside := sorted({found.name for found in folder.parent.iterdir()} - {inside}):
        raise not_trusted(name, f"model/{ARTIFACTS} has {beside[0]!r} beside the retriever, expected nothing")
    manifest = read_manifest(folder, "retriever", verify=False)
    if manifest.hash != tags.get(HASH_TAG):
        found, expected = manifest.hash[:12], str(tags.get(HASH_TAG))[:12]
        raise not_trusted(name, f"its files are the retriever {found}, its tag {HASH_TAG} says {expected}")
    if fault := foreign_content(folder, manifest):
        raise not_trusted(name, fault)
    return folder


def artifact_name(tags: Mapping[str, str], name: str) -> str:
    """The name of a version's retriever folder, after checking that its tags are of a known format.

    Raises:
        ArtifactMismatchError: the format is not known here, or the tag names a place elsewhere.
    """
    if not is_known(tags):
        raise ArtifactMismatchError(
            f"{name} has format {format_of(tags)}, this rabtriever answers {FORMAT}; install the rabtriever that "
            "registered it, or train a new version with this one (make run)"
        )
    path = tags.get(PATH_TAG, "")
    match = _PATH.fullmatch(path)
    if match is None:
        raise not_trusted(name, f"its tag {PATH_TAG} is {path!r}, expected a folder in model/{ARTIFACTS}")
    return match[1]


def format_of(tags: Mapping[str, str]) -> str:
    """The format number of a version, from its tags; "0" before formats had one."""
    return tags.get(FORMAT_TAG, "0")


def is_known(tags: Mapping[str, str]) -> bool:
    """Whether a version, by its tags, is of the format that is answered here."""
    return format_of(tags) == str(FORMAT)


def not_trusted(name: str, why: str) -> ArtifactMismatchError:
    """The error that says which version is not trusted, and why."""
    advice = "register the retriever again (python -m flows.register), or name another version"
    return ArtifactMismatchError(f"{name} is not trusted: {why}; {advice}")


def foreign_content(folder: Path, manifest: Manifest) -> str | None:
    """What a retriever folder holds that is not data of its manifest; None where there is nothing of the kind.

    Foreign are links, files that the manifest does not list, files of other kinds than text, JSON, safetensors and
    FAISS, and settings by which a library would load code from elsewhere.
    """
    for path, is_plain in _entries(folder):
        listed = path.relative_to(folder).as_posix()
        if not is_plain:
            return f"{listed} is a link or not a plain file, expected files and folders"
        if listed != MANIFEST_NAME and listed not in manifest.files:
            return f"{listed} is not listed in {MANIFEST_NAME}"
    for listed in manifest.files:
        path = Path(listed)
        if path.is_absolute() or ".." in path.parts:
            return f"{MANIFEST_NAME} lists {listed!r}, which is not in the folder"
        if path.suffix not in _DATA or path.name in _LEADS_ELSEWHERE:
            return f"{listed} is not a file of a retriever, expected one of {', '.join(sorted(_DATA))}"
        if (folder / path).is_file() and (fault := _leading_elsewhere(folder / path)):
            return f"{listed} {fault}"
    return None


def _leading_elsewhere(path: Path) -> str | None:
    """What in a JSON file of a language model would have transformers load code or weights from elsewhere."""
    own_tokenizer = (path.parent / "tokenizer.json").is_file()  # read by itself, whatever is set beside it
    configuration = path.name == "config.json" or (path.name == "tokenizer_config.json" and not own_tokenizer)
    if configuration and (found := _code_settings(read_json(path))):
        return f"sets {found[0]!r}, which loads code from elsewhere"
    if path.name.endswith(".index.json"):  # of weights in several files
        index = read_json(path)
        shards = index.get("weight_map") if isinstance(index, dict) else None
        names = set(map(str, shards.values())) if isinstance(shards, dict) else {""}
        if foreign := sorted(name for name in names if Path(name).name != name or not name.endswith(".safetensors")):
            return f"names the weights {foreign[0]!r}, expected safetensors beside it"
    return None


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Each file and link at any depth, and whether it is a plain file; links are not followed."""
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent, name)
            if path.is_symlink() or name in files:
                yield path, path.is_file() and not path.is_symlink()


def _code_settings(value: Any) -> list[str]:
    """The settings at any depth of a configuration by which transformers would load code.

    A model that transformers knows itself is loaded by its own code, whatever `auto_map` says.
    """
    if isinstance(value, list):
        return [name for part in value for name in _code_settings(part)]
    if not isinstance(value, dict):
        return []
    own = [name for name, part in value.items() if part and name.lstrip("_") in _KERNELS]
    if value.get("auto_map") and not _is_native(value.get("model_type")):
        own.append("auto_map")
    return own + [name for part in value.values() for name in _code_settings(part)]


def _is_native(model_type: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return isinstance(model_type, str) and model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def ask(folder: Path, query: str, k: int) -> list[dict[str, Any]]:
    """The documents that a retriever folder finds, with the code that is installed here.

    Args:
        folder: the retriever folder of a version.
        query: the question.
        k: documents wanted.

    Returns:
        {doc_id, score, title, text} of each document, score descending.

    Raises:
        ArtifactMismatchError: the folder was damaged, or is of a form that this code does not know.
    """
    from rabtriever.search.retriever import Retriever

    return [dict(hit._asdict()) for hit in Retriever.load(folder).search([query], k)[0]]
