"""Files of the user's model that are damaged, or were never fetched: told by name before a library fails on them."""

import json
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.lm.loading import load_backbone
from rabtriever.lm.model_source import resolve_source
from tests.language_models import small_llama

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935\nsize 988097824\n"
DAMAGED = (ValueError, ArtifactMismatchError)
OPENED = pytest.mark.parametrize("opened", [load_backbone, lambda folder: resolve_source(str(folder))])


@pytest.fixture
def model(tokenizer, tmp_path) -> Path:
    """A sound model folder of plain transformers."""
    small_llama(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def in_parts(model: Path) -> list[Path]:
    """Writes the weights of a model folder again, in several files with an index."""
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model)
    (model / "model.safetensors").unlink()
    loaded.save_pretrained(model, max_shard_size=20_000)
    return sorted(model.glob("model-*.safetensors"))


@OPENED
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs(opened, name, model):
    """P24: a clone without Git LFS ends in a traceback of safetensors."""
    (model / name).write_text(POINTER)
    with pytest.raises(DAMAGED, match=f"{name} is a Git LFS pointer, expected .*`git lfs pull`"):
        opened(model)


@OPENED
def test_cut_weights(opened, model):
    """P24: a broken download ends in a traceback of safetensors."""
    cut(model / "model.safetensors")
    with pytest.raises(DAMAGED, match=r"model\.safetensors of [\d,]+ bytes is cut .*download it again"):
        opened(model)


@OPENED
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_cut_settings(opened, name, model):
    """P24: the library names no file, or no reason."""
    cut(model / name)
    with pytest.raises(ValueError, match=rf"{name} is not JSON \(.*\); download or copy it again"):
        opened(model)


@OPENED
def test_weights_in_parts(opened, model):
    """P24: only the first part of the weights is looked at."""
    parts = in_parts(model)
    opened(model)
    cut(parts[-1])
    with pytest.raises(DAMAGED, match=f"{parts[-1].name} of .* is cut"):
        opened(model)
    parts[-1].unlink()
    with pytest.raises(FileNotFoundError, match=f"index.json names {parts[-1].name}, which is missing"):
        opened(model)
    (model / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"index\.json holds a list, expected names with values"):
        opened(model)


@OPENED
def test_pickled_weights(opened, model):
    """P24: weights of before safetensors are pointers too."""
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_text(POINTER)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is a Git LFS pointer"):
        opened(model)


@OPENED
def test_a_vocabulary_without_a_tokenizer_file(opened, model):
    """P24: three lines of a pointer are taken for a vocabulary of three words."""
    (model / "tokenizer.json").unlink()
    (model / "vocab.txt").write_text(POINTER)
    with pytest.raises(ValueError, match=r"vocab\.txt is a Git LFS pointer"):
        opened(model)


def test_the_tokenizer_in_a_folder_of_its_own(backbone, tmp_path):
    """P24: a folder that this project has written has its tokenizer elsewhere."""
    backbone.save(tmp_path)
    cut(tmp_path / "tokenizer" / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer/tokenizer\.json is not JSON"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("config.json", {"model_type": "none such"}, "config.json"),
        ("config.json", {"model_type": "llama", "hidden_size": "wide"}, "config.json"),
        ("config.json", {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 0}, "(config.json|weights)"),
        ("tokenizer.json", {"version": "1.0"}, "tokenizer"),
    ],
)
def test_whole_files_of_wrong_content(name, content, part, model):
    """P24: whatever else the library says of the user's files is a traceback."""
    (model / name).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"the {part} of '{model}' could not be loaded .*correct them, or download"):
        load_backbone(model)


def test_cut_pickled_weights(model):
    """P24: torch speaks of its archive reader."""
    import torch

    state = small_llama(10).state_dict()
    (model / "model.safetensors").unlink()
    torch.save(state, model / "pytorch_model.bin")
    cut(model / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"the weights of '{model}' could not be loaded"):
        load_backbone(model)


def test_memory_is_not_the_files_fault(model, monkeypatch):
    """P24: who lacks memory is told to download the model again."""
    import torch
    from transformers import AutoModelForCausalLM

    def full(*_, **__):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", full)
    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        load_backbone(model)


def test_files_that_are_not_read(model):
    """P24: a clone that fetched the weights alone is refused for the sake of other formats."""
    for name in ("flax_model.msgpack", "pytorch_model.bin", "onnx.json", "vocab.txt"):
        (model / name).write_text(POINTER)
    load_backbone(model)
