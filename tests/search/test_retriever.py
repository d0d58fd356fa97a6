"""The retriever folder: what is saved is what answers, and a folder that is not whole is refused."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rabtriever.core.artifacts import ArtifactMismatchError, write_manifest
from rabtriever.models.document_terms import EncodedDocuments
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import Projections
from tests.small_retriever import PARAMS


def test_saved_and_loaded_gives_the_same_run(retriever: Retriever, folder: Path, toy: Any):
    """What is registered must be what was evaluated."""
    loaded = Retriever.load(folder)
    before, after = retriever.rank(toy.queries, 8), loaded.rank(toy.queries, 8)
    for query_id, scores in before.items():
        assert list(after[query_id]) == list(scores)
        assert list(after[query_id].values()) == pytest.approx(list(scores.values()), abs=1e-5)
    assert loaded.manifest.info["num_documents"] == len(toy.corpus)


def test_a_champion_from_before_the_order_could_be_chosen(folder: Path, toy: Any):
    """A retriever registered with the release before cannot be opened, so that nothing can be compared with it."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    (folder / "settings.json").unlink()
    del manifest["files"]["settings.json"]
    pairs = sorted((name, record["sha256"]) for name, record in manifest["files"].items())
    manifest["hash"] = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    assert manifest["info"]["prompt"].pop("order") == "document_first"
    path.write_text(json.dumps(manifest))
    assert len(Retriever.load(folder).search([toy.queries["sponge-0"]], 3)[0]) == 3


def test_saving_twice_gives_the_same_identity(retriever: Retriever, folder: Path, tmp_path: Path):
    """A hash that differs for equal retrievers would register and promote the same one again and again."""
    again = retriever.save(tmp_path / "again", {"data": "0" * 64}, {"round": 0})
    assert again.hash == Retriever.load(folder).manifest.hash


def test_searching_otherwise_is_another_identity(retriever: Retriever, folder: Path, tmp_path: Path):
    """A retriever that takes the shortlist and not the scan is known to the registry, and never judged or served."""
    retriever.params = replace(PARAMS, exact_up_to=0)
    other = retriever.save(tmp_path / "other", {"data": "0" * 64}, {"round": 0})
    assert other.hash != Retriever.load(folder).manifest.hash
    assert not Retriever.load(tmp_path / "other").exact


def test_scores_are_the_unfolded_predictor_on_states_encoded_alone(
    retriever: Retriever, scorer: Scorer, toy: Any, documents: EncodedDocuments
):
    """The index must score what the distillation trained, for every document."""
    query = toy.queries["sponge-0"]
    state = torch.from_numpy(scorer.encoder.encode(scorer.prompt.query.ids([query]), 1))
    with torch.no_grad():
        predicted = scorer.predictor(state, documents.states)
        near = torch.nn.functional.normalize(state[:, : scorer.predictor.width], dim=-1) @ documents.document_vectors.T
        scores = predicted @ scorer.direction + 3.0 * near[0] + documents.document_bias
    assert (
        float((documents.document_vectors[1:3].norm(dim=-1) - 1).abs().min())
        > 1e-3
        < float(documents.document_bias.abs().min())
    )
    wanted = dict(zip(toy.corpus, scores.tolist(), strict=True))
    found = {hit.doc_id: hit.score for hit in retriever.search([query], 8)[0]}
    assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    "name", ["documents.safetensors", "predictor.safetensors", "corpus.jsonl", "shortlist.faiss", "encoder/config.json"]
)
def test_a_flipped_byte_is_refused(folder: Path, name: str):
    """A damaged file would answer, wrongly, without anybody noticing."""
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactMismatchError, match=re.escape(name)):
        Retriever.load(folder)


def test_a_missing_file_and_a_missing_folder_are_refused(folder: Path):
    """Both must say what is missing, before anything is loaded."""
    (folder / "documents.safetensors").unlink()
    with pytest.raises(ArtifactMismatchError, match="documents.safetensors"):
        Retriever.load(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Retriever.load(folder.parent / "nowhere")


def test_settings_of_other_code_are_told(retriever: Retriever, folder: Path):
    """A champion of an earlier release ends in a bare TypeError."""
    settings = json.loads((folder / "settings.json").read_text())
    del settings["index"]["depth"]
    (folder / "settings.json").write_text(json.dumps(settings))
    write_manifest(folder, "retriever", {}, {})
    with pytest.raises(ArtifactMismatchError, match="other settings than this code knows.*depth.*code that wrote it"):
        Retriever.load(folder)


@pytest.mark.parametrize("name", ["documents.safetensors", "predictor.safetensors", "encoder/model.safetensors"])
def test_cut_tensors_with_a_manifest_that_says_so(folder: Path, name: str):
    """P24: a file was cut before its hash was taken, as by a full disk, and a traceback of safetensors follows."""
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    write_manifest(folder, "retriever", facts["parents"], facts["info"])
    with pytest.raises(ArtifactMismatchError, match=f"{name} of 100 bytes is cut"):
        Retriever.load(folder)


def test_a_failed_save_leaves_the_old_folder(
    retriever: Retriever, folder: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
):
    """A full disk while a new index is written must not cost the one in service."""
    before = Retriever.load(folder).manifest.hash

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rabtriever.search.retriever_io.write_corpus", full)
    with pytest.raises(OSError, match="No space left"):
        retriever.save(folder, {"data": "1" * 64}, {"round": 1})
    assert Retriever.load(folder).manifest.hash == before


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (["tea"], 0, "k is 0"),
        (["tea", " "], 3, "query 1 is blank"),
        (["tea", "caf\udce9"], 3, r"query 1 is 'caf\\udce9', which is not Unicode text"),
    ],
)
def test_senseless_requests_are_refused(retriever: Retriever, queries: list[str], k: int, message: str):
    """An empty answer would look like a corpus without a match."""
    with pytest.raises(ValueError, match=message):
        retriever.search(queries, k)


def test_one_text_gives_one_list(retriever: Retriever):
    """A single text answered with a list of lists, or letter by letter, is a trap for whoever calls it."""
    alone = retriever.search("tea", 3)
    assert [type(hit).__name__ for hit in alone] == ["Hit"] * 3
    assert retriever.search(["tea"], 3) == retriever.search(("tea",), 3) == [alone]
    assert retriever.search([], 3) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda one: one.search({"q": "tea"}),
        lambda one: one.search([["tea"]]),
        lambda one: one.search(b"tea"),
        lambda one: one.search(None),
        lambda one: one.rank("tea", 3),
        lambda one: one.rank(["tea"], 3),
        lambda one: one.encode("tea"),
        lambda one: one.explain(["tea"], "kettle"),
        lambda one: one.explain("tea", ["kettle"]),
    ],
)
def test_texts_and_lists_are_not_mixed_up(retriever: Retriever, wrong: Callable[[Retriever], Any]):
    """A text taken apart into letters gives answers to queries that nobody asked."""
    with pytest.raises(TypeError, match="expected"):
        wrong(retriever)


def test_the_parts_of_a_score_sum_to_it(retriever: Retriever, toy: Any):
    """An explanation of another number than the one shown explains nothing."""
    query = toy.queries["sponge-0"]
    for hit in retriever.search(query, 8):
        found = retriever.explain(query, hit.doc_id)
        assert found.total == pytest.approx(hit.score, abs=1e-4)
        assert sum(found.parts.values()) == pytest.approx(found.total)
        assert all(found.parts.values()), "every part is at work in this retriever"


def test_an_unknown_document_is_told_with_the_nearest_id(retriever: Retriever):
    """A bare KeyError does not say what the mistake was."""
    with pytest.raises(ValueError, match="no document is 'kettel', expected one of the 8.*did you mean 'kettle'"):
        retriever.explain("tea", "kettel")


def test_an_id_that_looks_like_another_is_told_apart(retriever: Retriever):
    """O45: the message says that no document is kettle, and asks whether kettle was meant."""
    with pytest.raises(ValueError, match=r"there is 'kettle' with U\+0065 where this one has U\+0435"):
        retriever.explain("tea", "k\u0435ttle")


def test_repr_tells_what_is_loaded(retriever: Retriever, folder: Path):
    """A retriever that prints as an address leaves its user guessing which one answers."""
    loaded = Retriever.load(folder)
    assert repr(loaded) == (
        f"<Retriever: 8 documents, backbone qwen2 of width 32, no version, hash {loaded.manifest.hash[:12]}>"
    )
    loaded.version = "3"
    assert "version 3," in repr(loaded) and len(loaded) == len(loaded.documents) == 8


def test_k_above_the_corpus_gives_the_whole_corpus(retriever: Retriever, toy: Any):
    """The two modes must agree on what happens at the end of the corpus."""
    assert len(retriever.search(["tea"], 50)[0]) == len(toy.corpus)


def test_shortlist_of_everything_is_the_exact_scan(retriever: Retriever, toy: Any):
    """The shortlist only proposes: with all documents proposed it must change neither order nor score."""
    wanted = retriever.rank(toy.queries, 5)
    retriever.params = replace(PARAMS, exact_up_to=0, depth=len(toy.corpus))
    assert not retriever.exact
    found = retriever.rank(toy.queries, 5)
    for query_id in wanted:
        assert list(found[query_id]) == list(wanted[query_id])
        assert list(found[query_id].values()) == pytest.approx(list(wanted[query_id].values()), abs=1e-4)


@pytest.mark.parametrize("k", [1, 5, 8, 50])
def test_cells_with_too_few_documents(scorer: Scorer, toy: Any, documents: Any, k: int):
    """P10: an index of cells searches one of them, and three documents are found though ten were asked for."""
    projections = Projections(scorer.encoder.width, PARAMS.dimension)
    exact, cells = (
        Retriever.assemble(scorer, toy.corpus, documents, projections, params)
        for params in (PARAMS, replace(PARAMS, exact_up_to=0, factory="IVF4,Flat"))
    )
    assert (cells.shortlist(cells.encode(["tea"]), 8) < 0).any(), "the index alone does not have them"
    wanted, found = (one.search(list(toy.queries.values()), k) for one in (exact, cells))
    assert [len(hits) for hits in found] == [min(k, len(toy.corpus))] * len(found)
    for exactly, hits in zip(wanted, found, strict=True):
        assert [hit.doc_id for hit in hits] == [hit.doc_id for hit in exactly]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in exactly], abs=1e-4)


def test_only_the_queries_without_enough_are_scanned(retriever: Retriever, toy: Any, monkeypatch: pytest.MonkeyPatch):
    """P10: one poor cell makes every query scan a corpus that is too large for it."""
    texts = list(toy.queries.values())[:3]
    retriever.params = replace(PARAMS, exact_up_to=0, depth=2)
    scanned, exact_top = [], retriever.exact_top
    monkeypatch.setattr(retriever, "exact_top", lambda state, k: (scanned.append(len(state)), exact_top(state, k))[1])
    proposals = retriever.shortlist(retriever.encode(texts), 2)
    retriever.search(texts, 2)
    assert scanned == [], "enough is proposed for each"
    proposals[1, 1] = -1
    monkeypatch.setattr(retriever, "shortlist", lambda states, depth: proposals)
    found = retriever.search(texts, 2)
    assert scanned == [1] and [len(hits) for hits in found] == [2, 2, 2]


def test_reindexed_covers_the_new_corpus_with_the_old_weights(retriever: Retriever, toy: Any):
    """A champion compared on new data must search the new documents, with unchanged scores for old ones."""
    corpus = dict(reversed(list(toy.corpus.items())[:3]))
    smaller = retriever.reindexed(corpus)
    wanted = retriever.rank(toy.queries, 8)["sponge-0"]
    found = smaller.rank(toy.queries, 8)["sponge-0"]
    assert set(found) == set(corpus)
    assert found == pytest.approx({doc_id: wanted[doc_id] for doc_id in corpus}, abs=1e-4)


def test_reindexed_forgets_what_was_told_of_another_text(retriever: Retriever, toy: Any):
    """Ids that are numbers of rows give a champion the memory of other documents, and the gate a wrong comparison."""
    first, second, third, *rest = toy.corpus.values()
    edited = second._replace(text=f"{second.text} indeed")
    changed = {one.doc_id: one for one in (first, edited, third._replace(title="", text="quite unlike"), *rest)}
    assert retriever.memory.rows.tolist() == [1, 2]
    assert retriever.reindexed(toy.corpus).memory.rows.tolist() == [1, 2]
    assert retriever.reindexed(changed).memory.rows.tolist() == [1]


def test_batch_of_queries_does_not_change_a_score(retriever: Retriever, toy: Any, make_backbone: Callable[..., Any]):
    """Serving one query at a time must give what evaluation measured in batches."""
    texts = list(toy.queries.values())
    together = retriever.search(texts, 8)
    alone = [retriever.search([text], 8)[0] for text in texts]
    for first, second in zip(together, alone, strict=True):
        assert np.allclose([hit.score for hit in first], [hit.score for hit in second], atol=1e-4)
        assert [hit.doc_id for hit in first] == [hit.doc_id for hit in second]


def test_reindexed_encodes_documents_on_their_own_side(
    scorer: Scorer, retriever: Retriever, toy: Any, make_backbone: Callable[..., Any]
):
    """A champion with a query adapter is compared on documents that its query encoder has read."""
    adapted = replace(scorer, encoder=replace(scorer.encoder, compared=make_backbone(seed=7)))
    retriever._scorer = adapted
    found = retriever.reindexed(toy.corpus)
    for one, other in zip(found._folded, retriever._folded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
