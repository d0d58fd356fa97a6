"""The store of document embeddings: shards, and what a killed run left of them."""

import numpy as np
import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.lm.backbone import Backbone
from rabtriever.training.embeddings import copy_shards, read_embeddings, write_shards


@pytest.mark.parametrize("size", [3, 8])
def test_shards_are_the_states_in_order(backbone, document_ids, tmp_path, size):
    """States stand in another document's row where a corpus takes several shards."""
    assert write_shards(backbone, document_ids, tmp_path / "scratch", size, 4) == 0
    (tmp_path / "store").mkdir()
    copy_shards(tmp_path / "scratch", tmp_path / "store")
    found = read_embeddings(tmp_path / "store", 8)
    np.testing.assert_allclose(found, backbone.encode(document_ids, 4), atol=1e-5)
    assert found.dtype == np.float32 and len(list((tmp_path / "store").iterdir())) == -(-8 // size)


def test_finished_shards_are_not_encoded_again(backbone, document_ids, tmp_path, monkeypatch):
    """A kill near the end of a large corpus costs all that was done."""
    write_shards(backbone, document_ids, tmp_path, 3, 4)
    whole = read_embeddings(tmp_path, 8)
    (tmp_path / "shard-00001.npy").unlink()
    asked, encode = [], Backbone.encode
    monkeypatch.setattr(Backbone, "encode", lambda self, ids, *rest: asked.append(ids) or encode(self, ids, *rest))
    assert write_shards(backbone, document_ids, tmp_path, 3, 4) == 2
    assert asked == [document_ids[3:6]]
    np.testing.assert_array_equal(read_embeddings(tmp_path, 8), whole)


@pytest.mark.parametrize("rows", [7, 9])
def test_a_store_of_another_corpus_is_refused(backbone, document_ids, tmp_path, rows):
    """States beyond the corpus are laid aside, so that every document has another one's."""
    write_shards(backbone, document_ids, tmp_path, 3, 4)
    with pytest.raises(ArtifactMismatchError, match=f"8 document states in 3 shards, but the corpus has {rows}"):
        read_embeddings(tmp_path, rows)


def test_a_store_becomes_tensors_without_a_warning(backbone, document_ids, tmp_path, recwarn):
    """Stages print that the memory behind a tensor is not writable; or what is written to it changes the store."""
    write_shards(backbone, document_ids, tmp_path, 8, 4)
    found = torch.from_numpy(read_embeddings(tmp_path, 8))
    assert [str(one.message) for one in recwarn if "not writable" in str(one.message)] == []
    kept = found.clone()
    found.zero_()
    assert torch.equal(torch.from_numpy(read_embeddings(tmp_path, 8)), kept) and bool(kept.any())
