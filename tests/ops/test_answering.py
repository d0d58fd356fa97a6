"""Which versions are opened: a folder of data that is the one registered, and nothing else (S01)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, read_manifest, write_manifest
from rabtriever.ops.answering import FORMAT, is_known, trusted_folder
from tests.toy import dataset, write_retriever

PATH = "model/artifacts/retriever"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The model folder of a version with a toy retriever."""
    write_retriever(tmp_path / PATH, dataset(), 0.5)
    return tmp_path / "model"


def tags(model: Path, **changes: str) -> dict[str, str]:
    """The tags of the version in a model folder."""
    manifest = read_manifest(model / "artifacts/retriever", "retriever", verify=False)
    return {"format": str(FORMAT), "retriever_hash": manifest.hash, "artifact_path": PATH, **changes}


def put(name: str, text: str) -> Callable[[Path], None]:
    """Writes a file into the retriever folder."""

    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return write


def link_file(folder: Path) -> None:
    """A file of the folder becomes a link to an equal one outside."""
    (folder / "best.json").rename(folder.parents[2] / "best.json")
    (folder / "best.json").symlink_to(folder.parents[2] / "best.json")


def link_folder(folder: Path) -> None:
    """The folder becomes a link to one outside."""
    shutil.move(folder, folder.parents[2] / "elsewhere")
    folder.symlink_to(folder.parents[2] / "elsewhere")


def link_inside(folder: Path) -> None:
    """A folder outside is linked into the retriever."""
    (folder / "encoder").symlink_to(folder.parents[2], target_is_directory=True)


def test_a_sound_version_is_opened(model: Path) -> None:
    """Prevents refusing what was registered here (S01)."""
    assert trusted_folder(model, tags(model), "version 3") == model / "artifacts/retriever"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("../python_model.pkl", "x"), r"has 'python_model.pkl' beside the retriever"),
        (put("more.pkl", "x"), r"more\.pkl is not listed"),
        (put(".hidden.py", "x"), r"hidden\.py is not listed"),
        (put("encoder/modeling.py", "x"), r"modeling\.py is not listed"),
        (link_file, r"best\.json is a link"),
        (link_inside, r"encoder is a link"),
        (link_folder, r"retriever is a link to .*elsewhere"),
    ],
)
def test_what_does_not_belong_there_is_refused(model: Path, change: Callable[[Path], None], why: str) -> None:
    """Prevents opening a folder that somebody has put a file or a link into (S01)."""
    known = tags(model)
    change(model / "artifacts/retriever")
    with pytest.raises(ArtifactMismatchError, match=f"version 3 is not trusted: .*{why}.*register the retriever again"):
        trusted_folder(model, known, "version 3")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("encoder/pytorch_model.bin", "x", "is not a file of a retriever"),
        ("encoder/adapter_config.json", '{"base_model_name_or_path": "/elsewhere"}', "is not a file of a retriever"),
        ("encoder/modeling.py", "x = 1", "is not a file of a retriever"),
        ("encoder/config.json", '{"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}', "sets 'auto_map'"),
        ("encoder/config.json", '{"auto_map": {"AutoConfig": "a/b--c.C"}, "model_type": "new"}', "sets 'auto_map'"),
        ("encoder/config.json", '{"auto_map": {"AutoConfig": "a/b--c.C"}, "model_type": "clip"}', "sets 'auto_map'"),
        ("encoder/config.json", '{"text": [{"_attn_implementation": "a/b"}]}', "sets '_attn_implementation'"),
        ("other/tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a/b--t.T"]}}', "sets 'auto_map'"),
        ("other/model.safetensors.index.json", '{"weight_map": {"a": "../w.safetensors"}}', "names the weights"),
        ("other/model.safetensors.index.json", '{"weight_map": {"a": "w.bin"}}', "names the weights 'w.bin'"),
    ],
)
def test_what_would_load_code_is_refused_though_listed(model: Path, name: str, text: str, why: str) -> None:
    """Prevents a manifest and a tag that somebody has written to fit a file by which a library runs code (S01)."""
    folder = model / "artifacts/retriever"
    put(name, text)(folder)
    write_manifest(folder, "retriever", {}, {})
    with pytest.raises(ArtifactMismatchError, match=f"version 3 is not trusted: {name} {why}"):
        trusted_folder(model, tags(model), "version 3")


def test_configurations_as_they_are_saved_are_data(model: Path) -> None:
    """Prevents refusing every language model because of settings that name nothing to load (S01)."""
    folder = model / "artifacts/retriever"
    # as of a hub's model that once came with code, and is now known to transformers
    saved = {"model_type": "phi3", "auto_map": {"AutoConfig": "a/b--c.C"}, "rope": {"type": "linear"}}
    put("encoder/config.json", json.dumps(saved))(folder)
    put("encoder/tokenizer/tokenizer.json", "{}")(folder)
    put("MODEL_CARD.md", "# What it is\n")(folder)
    put("encoder/tokenizer/tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["a/b--t.T", null]}}')(folder)
    put("encoder/model.safetensors.index.json", '{"weight_map": {"a": "model-1.safetensors"}}')(folder)
    write_manifest(folder, "retriever", {}, {})
    assert trusted_folder(model, tags(model), "version 3") == folder


def test_a_manifest_that_names_files_elsewhere_is_refused(model: Path) -> None:
    """Prevents reading outside of the folder by a name in its manifest (S01)."""
    path = model / "artifacts/retriever/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../../best.json"] = manifest["files"]["best.json"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactMismatchError, match="which is not in the folder"):
        trusted_folder(model, tags(model), "version 3")


@pytest.mark.parametrize(
    "place", ["", "model/artifacts/..", "model/artifacts/../../x", "/etc", "model/code/rabtriever"]
)
def test_a_tag_that_names_another_place_is_refused(model: Path, place: str) -> None:
    """Prevents reading whatever folder of the client somebody names in a tag (S01)."""
    with pytest.raises(ArtifactMismatchError, match="version 3 is not trusted: its tag artifact_path is"):
        trusted_folder(model, tags(model, artifact_path=place), "version 3")


@pytest.mark.parametrize("found", ["0", "1", "3", "", "latest", None])
def test_a_format_of_another_number_is_refused(model: Path, found: str | None) -> None:
    """Prevents reading a folder by the rules of another format (S01); one without a number is older than numbers."""
    known = {
        name: value for name, value in tags(model, format=found or "").items() if name != "format" or found is not None
    }
    told = (
        f"version 3 has format {found if found is not None else 0}, this rabtriever answers 2; install the rabtriever"
    )
    with pytest.raises(ArtifactMismatchError, match=told):
        trusted_folder(model, known, "version 3")
    assert not is_known(known) and is_known(tags(model))


@pytest.mark.parametrize("found", ["", "0" * 64])
def test_another_retriever_than_the_tag_says_is_refused(model: Path, found: str) -> None:
    """Prevents answering with files that were exchanged after the version was registered (S01)."""
    with pytest.raises(ArtifactMismatchError, match="version 3 is not trusted: its files are the retriever"):
        trusted_folder(model, tags(model, retriever_hash=found), "version 3")
