"""The retriever folder: what is saved is what answers, and a folder that is not whole is refused."""

from __future__ import annotations

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
from rabtriever.models.document_prior import PriorFeatures, PriorWeights, with_prior
from rabtriever.search.retriever import Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import Projections
from tests.small_retriever import FACTS, PARAMS


def test_saved_and_loaded_gives_the_same_run(retriever: Retriever, folder: Path, toy: Any):
    """What is registered must be what was evaluated."""
    loaded = Retriever.load(folder)
    before, after = retriever.rank(toy.queries, 8), loaded.rank(toy.queries, 8)
    for query_id, scores in before.items():
        assert list(after[query_id]) == list(scores)
        assert list(after[query_id].values()) == pytest.approx(list(scores.values()), abs=1e-5)
    assert loaded.manifest.info["num_documents"] == len(toy.corpus)


def test_saving_twice_gives_the_same_identity(retriever: Retriever, folder: Path, tmp_path: Path):
    """A hash that differs for equal retrievers would register and promote the same one again and again."""
    again = retriever.save(tmp_path / "again", {"data": "0" * 64}, FACTS)
    assert again.hash == Retriever.load(folder).manifest.hash


def test_searching_otherwise_is_another_identity(retriever: Retriever, folder: Path, tmp_path: Path):
    """A retriever that takes the shortlist and not the scan is known to the registry, and never judged or served."""
    retriever.params = replace(PARAMS, exact_up_to=0)
    other = retriever.save(tmp_path / "other", {"data": "0" * 64}, FACTS)
    assert other.hash != Retriever.load(folder).manifest.hash
    assert not Retriever.load(tmp_path / "other").exact


def test_scores_are_the_unfolded_predictor_on_states_encoded_alone(
    retriever: Retriever, scorer: Scorer, toy: Any, documents: torch.Tensor
):
    """The index must score what the distillation trained, for every document."""
    query = toy.queries["sponge-0"]
    state = torch.from_numpy(scorer.encoder.encode(scorer.prompt.query.ids([query]), 1))
    with torch.no_grad():
        predicted = scorer.predictor(state, documents)
        cosines = (state @ documents.T)[0] / (state.norm() * documents.norm(dim=-1))
        scores = predicted @ scorer.direction + 3.0 * cosines
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


def without_depth(settings: dict[str, Any]) -> None:
    del settings["index"]["depth"]


def with_order(settings: dict[str, Any]) -> None:
    settings["prompt"]["order"] = "document_first"


@pytest.mark.parametrize(("edit", "key"), [(without_depth, "depth"), (with_order, "order")])
def test_settings_of_other_code_are_told(folder: Path, edit: Callable[[dict[str, Any]], None], key: str):
    """A champion of an earlier release ends in a bare TypeError."""
    settings = json.loads((folder / "settings.json").read_text())
    edit(settings)
    (folder / "settings.json").write_text(json.dumps(settings))
    write_manifest(folder, "retriever", {}, {})
    with pytest.raises(ArtifactMismatchError, match=f"other settings than this code knows.*{key}.*code that wrote it"):
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
        retriever.save(folder, {"data": "1" * 64}, FACTS)
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
        Retriever.assemble(scorer, toy.corpus, documents, params, projections)
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


def test_batch_of_queries_does_not_change_a_score(retriever: Retriever, toy: Any, make_backbone: Callable[..., Any]):
    """Serving one query at a time must give what evaluation measured in batches."""
    texts = list(toy.queries.values())
    together = retriever.search(texts, 8)
    alone = [retriever.search([text], 8)[0] for text in texts]
    for first, second in zip(together, alone, strict=True):
        assert np.allclose([hit.score for hit in first], [hit.score for hit in second], atol=1e-4)
        assert [hit.doc_id for hit in first] == [hit.doc_id for hit in second]


@pytest.fixture
def prior() -> tuple[PriorFeatures, PriorWeights]:
    """What training queries might tell of the toy documents, and weights of it."""
    rng = np.random.default_rng(5)
    centroids = rng.normal(size=(8, 32)).astype(np.float32) / 6
    hubness = rng.uniform(0.1, 0.9, 8).astype(np.float32)
    popularity = np.log1p(np.arange(8, dtype=np.float32))
    return PriorFeatures(centroids, hubness, popularity), PriorWeights(6.0, 2.0, 0.5)


@pytest.fixture
def with_layer(scorer: Scorer, toy: Any, documents: torch.Tensor, prior: Any) -> Retriever:
    """The untrained student with the document prior, scanned."""
    folded = with_prior(scorer.fold(documents), *prior, similarity=3.0)
    return Retriever.assemble(scorer, toy.corpus, documents, PARAMS, folded=folded)


def test_the_prior_is_added_to_every_score(
    with_layer: Retriever, scorer: Scorer, toy: Any, documents: torch.Tensor, prior: Any
):
    """The layer is lost in the folded index, takes another query's side, or moves scores by another amount."""
    (centroids, hubness, popularity), query = prior[0], toy.queries["sponge-0"]
    state = scorer.encode([query])[0].numpy()
    more = 6.0 * centroids @ (state / np.linalg.norm(state)) + 0.5 * popularity - 2.0 * hubness
    plain = Retriever.assemble(scorer, toy.corpus, documents, PARAMS).rank({"q": query}, 8)["q"]
    wanted = {name: plain[name] + float(one) for name, one in zip(toy.corpus, more, strict=True)}
    assert np.ptp(more) > 1, "the layer changes the ranking"
    assert with_layer.rank({"q": query}, 8)["q"] == pytest.approx(wanted, abs=1e-4)


def test_a_prior_saved_and_loaded_gives_the_same_scores(with_layer: Retriever, toy: Any, tmp_path: Path):
    """What is served lacks the layer that was evaluated."""
    with_layer.save(tmp_path / "retriever", {"data": "0" * 64}, {**FACTS, "document_prior": True})
    before, after = (one.rank(toy.queries, 8) for one in (with_layer, Retriever.load(tmp_path / "retriever")))
    for query_id, scores in before.items():
        assert list(after[query_id]) == list(scores)
        assert after[query_id] == pytest.approx(scores, abs=1e-5)


def test_the_parts_of_a_score_with_prior_sum_to_it(with_layer: Retriever, retriever: Retriever, toy: Any, prior: Any):
    """The layer is in the score that is shown, and in no part of its explanation."""
    query, row = toy.queries["sponge-0"], list(toy.corpus).index("broom")
    shown = {hit.doc_id: hit.score for hit in with_layer.search(query, 8)}["broom"]
    found, plain = with_layer.explain(query, "broom"), retriever.explain(query, "broom")
    assert found.total == pytest.approx(shown, abs=1e-4)
    biased = 0.5 * prior[0].popularity[row] - 2.0 * prior[0].hubness[row]
    assert found.document_bias - plain.document_bias == pytest.approx(float(biased), abs=1e-4)
    assert (found.relu_units, found.product_units) == (plain.relu_units, plain.product_units)


def test_reindexed_leaves_the_prior_behind(with_layer: Retriever, retriever: Retriever, toy: Any):
    """A champion is compared on new documents with what training queries told of old ones in the same rows."""
    corpus = dict(reversed(list(toy.corpus.items())))
    wanted, found = retriever.rank(toy.queries, 8), with_layer.reindexed(corpus).rank(toy.queries, 8)
    for query_id, scores in wanted.items():
        assert found[query_id] == pytest.approx(scores, abs=1e-4)


@pytest.fixture
def scanned(scorer: Scorer, toy: Any, documents: torch.Tensor) -> Retriever:
    """The untrained student without a shortlist."""
    return Retriever.assemble(scorer, toy.corpus, documents, replace(PARAMS, exact_up_to=8))


def test_a_scanned_corpus_has_no_shortlist(scanned: Retriever, retriever: Retriever, toy: Any, tmp_path: Path):
    """A corpus that is scanned costs the training of a shortlist, or a search that asks for one ends in a traceback."""
    manifest = scanned.save(tmp_path / "retriever", {"data": "0" * 64}, FACTS)
    assert not [name for name in manifest.files if "shortlist" in name]
    assert not list((tmp_path / "retriever").glob("shortlist*"))
    wanted = retriever.rank(toy.queries, 5)
    for one in (scanned, Retriever.load(tmp_path / "retriever")):
        assert one.exact
        found = one.rank(toy.queries, 5)
        assert {name: list(scores) for name, scores in found.items()} == {name: list(wanted[name]) for name in wanted}
        with pytest.raises(ValueError, match="8 documents are scanned; there is no shortlist up to index.exact_up_to"):
            one.shortlist(one.encode(["tea"]), 3)


def test_a_corpus_that_is_not_scanned_needs_a_shortlist(scorer: Scorer, toy: Any, documents: torch.Tensor):
    """A retriever is assembled that fails at its first search."""
    with pytest.raises(ValueError, match="8 documents are over index.exact_up_to: train a shortlist for them"):
        Retriever.assemble(scorer, toy.corpus, documents, replace(PARAMS, exact_up_to=7))


def test_a_shortlist_of_another_corpus_is_refused(retriever: Retriever, folder: Path, toy: Any):
    """An index that proposes rows of other documents answers with texts that have nothing to do with the scores."""
    import faiss

    index = faiss.read_index(str(folder / "shortlist.faiss"))
    index.add(np.zeros((1, index.d), dtype=np.float32))
    faiss.write_index(index, str(folder / "shortlist.faiss"))
    write_manifest(folder, "retriever", {}, FACTS)
    loaded = Retriever.load(folder)
    with pytest.raises(ArtifactMismatchError, match=r"counts disagree \(\{'texts': 8, 'shortlist vectors': 9\}\)"):
        loaded.shortlist(loaded.encode(["tea"]), 3)
