"""Tensors on disk: files that are not whole, or of another module."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.core.tensors import restore, tensor_file


def test_a_whole_file(tmp_path):
    """P24: a sound file is refused, or one of no tensors."""
    for tensors in ({"states": np.ones((3, 4), dtype=np.float32)}, {}):
        save_file(tensors, tmp_path / "some.safetensors")
        assert tensor_file(tmp_path / "some.safetensors") == tmp_path / "some.safetensors"


@pytest.mark.parametrize("kept", [0, 4, 30, -1])
def test_a_cut_file(tmp_path, kept):
    """P24: the reader is told of a header, and not of which file."""
    path = tmp_path / "some.safetensors"
    save_file({"states": np.ones((3, 4), dtype=np.float32)}, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactMismatchError, match=r"some\.safetensors of \d+ bytes is cut .*copy or download"):
        tensor_file(path)


def test_a_missing_file(tmp_path):
    """P24: the library's own error has no advice."""
    with pytest.raises(FileNotFoundError, match=r"no file .*some\.safetensors, expected tensors"):
        tensor_file(tmp_path / "some.safetensors")


def test_tensors_of_another_module():
    """P24: torch's list of keys, without the file they came from."""
    with pytest.raises(ArtifactMismatchError, match=r"a/b\.safetensors has other tensors .*bias.*run the stage"):
        restore(torch.nn.Linear(2, 3), {"weight": torch.ones(3, 2)}, "a/b.safetensors")
    restore(torch.nn.Linear(2, 3, bias=False), {"weight": torch.ones(3, 2)}, "a/b.safetensors")
