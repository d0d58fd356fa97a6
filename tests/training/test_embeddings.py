"""The store of document states: shards, what a killed run left of them, and what training queries tell."""

import numpy as np
import pytest

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.lm.encoder import Encoder
from rabtriever.models.document_terms import read_memory, remember, save_memory
from rabtriever.training.embeddings import copy_shards, read_embeddings, write_shards


@pytest.fixture
def encoder(backbone) -> Encoder:
    return Encoder(backbone)


@pytest.mark.parametrize("size", [3, 8])
def test_shards_are_the_states_in_order(encoder, backbone, document_ids, tmp_path, size):
    """States stand in another document's row where a corpus takes several shards."""
    assert write_shards(encoder, document_ids, tmp_path / "scratch", size, 4) == 0
    (tmp_path / "store").mkdir()
    copy_shards(tmp_path / "scratch", tmp_path / "store")
    found = read_embeddings(tmp_path / "store", 8)
    np.testing.assert_allclose(found, backbone.encode(document_ids, 4), atol=1e-5)
    assert found.dtype == np.float32 and len(list((tmp_path / "store").iterdir())) == -(-8 // size)


def test_finished_shards_are_not_encoded_again(encoder, document_ids, tmp_path, monkeypatch):
    """A kill near the end of a large corpus costs all that was done."""
    write_shards(encoder, document_ids, tmp_path, 3, 4)
    whole = read_embeddings(tmp_path, 8)
    (tmp_path / "shard-00001.npy").unlink()
    asked, encode = [], Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, ids, *rest: asked.append(ids) or encode(self, ids, *rest))
    assert write_shards(encoder, document_ids, tmp_path, 3, 4) == 2
    assert asked == [document_ids[3:6]]
    np.testing.assert_array_equal(read_embeddings(tmp_path, 8), whole)


@pytest.mark.parametrize("rows", [7, 9])
def test_a_store_of_another_corpus_is_refused(encoder, document_ids, tmp_path, rows):
    """States beyond the corpus are laid aside, so that every document has another one's."""
    write_shards(encoder, document_ids, tmp_path, 3, 4)
    with pytest.raises(ArtifactMismatchError, match=f"8 document states in 3 shards, but the corpus has {rows}"):
        read_embeddings(tmp_path, rows)


def test_memory_comes_back_as_it_was(tmp_path):
    """A part of what training queries tell is lost, or takes another's place."""
    states = np.random.default_rng(0).standard_normal((4, 8)).astype(np.float32)
    memory = remember(states, [{0: 1}, {1: 1}, {1: 2}, {2: 1}])
    save_memory(tmp_path / "memory.safetensors", memory)
    found = read_memory(tmp_path / "memory.safetensors")
    for name, part in memory._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), part)
    assert read_memory(tmp_path / "none.safetensors") is None
