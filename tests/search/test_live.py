"""Documents that change while a retriever is in service: answers are those of an index built anew."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rabtriever.data.beir_io import Document
from rabtriever.search.live import Filter, LiveRetriever, Query
from rabtriever.search.retriever import Hit, Retriever
from rabtriever.search.scorer import Scorer
from rabtriever.search.shortlist import Projections
from rabtriever.search.text_states import TextStates, encoder_identity
from tests.conftest import TOOLS
from tests.small_retriever import PARAMS

ASKED = ["I spilled my coke", "it is dark in the cellar", "tea"]
IDS = st.sampled_from([*TOOLS, "rope", "mug", "lamp"])
FORMS = st.sampled_from(["removed", "as it was", "edited", "another text", "other metadata"])
BATCHES = st.lists(st.dictionaries(IDS, FORMS, min_size=1, max_size=5), min_size=1, max_size=4)


def _document(doc_id: str, form: str) -> Document | None:
    """What is put for an id."""
    text = TOOLS.get(doc_id, f"a {doc_id} of good quality for many uses")
    if form == "removed":
        return None
    if form == "another text":
        return Document(doc_id, "", f"quite unlike what {doc_id} named before")
    text = f"{text} indeed" if form == "edited" else text
    return Document(doc_id, doc_id.capitalize(), text, {"n": 1} if form == "other metadata" else {})


def _changed(corpus: Mapping[str, Document], changes: Mapping[str, Document | None]) -> dict[str, Document]:
    return {doc_id: one for doc_id, one in {**corpus, **changes}.items() if one is not None}


def _scores(hits: list[Hit]) -> dict[str, float]:
    return {hit.doc_id: hit.score for hit in hits}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_answers_are_those_of_an_index_built_anew(retriever: Retriever, toy: Any, batches: list[dict[str, str]]):
    """The central promise: a sequence of changes gives a score, a rank or a document that no index would give."""
    live, corpus = LiveRetriever.of(retriever), dict(toy.corpus)
    for batch in batches:
        changes = {doc_id: _document(doc_id, form) for doc_id, form in batch.items()}
        live, corpus = live.changed(changes), _changed(corpus, changes)
        assert {one.doc_id: one for one in live.documents} == corpus and len(live) == len(corpus)
    if not corpus:
        assert live.search([Query(text) for text in ASKED]) == [[]] * len(ASKED)
        return
    anew = retriever.reindexed(corpus)
    for text, everything, few in zip(
        ASKED, live.search([Query(text, 50) for text in ASKED]), live.search([Query(text, 3) for text in ASKED]),
        strict=True,
    ):  # fmt: skip
        wanted = anew.search(text, 50)
        assert _scores(everything) == pytest.approx(_scores(wanted), abs=1e-4)
        assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
        assert [hit.score for hit in few] == pytest.approx([hit.score for hit in wanted[:3]], abs=1e-4)
        assert all(hit == Hit.of(corpus[hit.doc_id], hit.score) for hit in everything)
    at_once = LiveRetriever.of(retriever, live.changes)
    assert _scores(at_once.search([Query("tea", 50)])[0]) == pytest.approx(_scores(anew.search("tea", 50)), abs=1e-4)


def test_only_what_was_put_is_encoded(retriever: Retriever, monkeypatch: pytest.MonkeyPatch):
    """One new document costs the encoding of the corpus, or of all that were put before."""
    encoded: list[str] = []
    encode = Scorer.encode_documents
    monkeypatch.setattr(Scorer, "encode_documents", lambda self, texts: (encoded.extend(texts), encode(self, texts))[1])
    live = LiveRetriever.of(retriever, {"mug": Document("mug", "", "holds tea")})
    live = live.changed({"rope": Document("rope", "", "ties knots"), "kettle": None})
    live = live.changed({"mug": Document("mug", "", "holds tea", {"n": 1}), "torch": None})
    assert encoded == ["holds tea", "ties knots"]
    assert [one.metadata for one in live.documents if one.doc_id == "mug"] == [{"n": 1}]


def test_a_change_leaves_the_retriever_before_as_it_was(retriever: Retriever):
    """A search that runs while documents are put sees half of the change."""
    before = LiveRetriever.of(retriever, {"mug": Document("mug", "", "holds tea")})
    wanted = before.search([Query("tea", 50)])
    before.changed({"mug": None, "kettle": None, "rope": Document("rope", "", "ties knots")})
    assert before.search([Query("tea", 50)]) == wanted and len(before) == 9


def test_taking_a_change_back_leaves_nothing(retriever: Retriever, toy: Any):
    """Changes that make no difference are kept, scanned and masked for ever."""
    live = LiveRetriever.of(retriever, {"kettle": None, "mug": Document("mug", "", "holds tea"), "rope": None})
    assert list(live.changes) == ["kettle", "mug"]
    live = live.changed({"kettle": toy.corpus["kettle"], "mug": None})
    assert live.changes == {} and list(live.documents) == list(retriever.documents)
    assert live.search([Query("tea", 3)]) == [retriever.search("tea", 3)]


def test_a_document_is_put_under_its_own_id(retriever: Retriever):
    """A hit has an id that no document is found by."""
    with pytest.raises(ValueError, match="document 'mug' is put as 'cup'; put it under its own id"):
        LiveRetriever.of(retriever, {"cup": Document("mug", "", "holds tea")})


@pytest.fixture
def rooms(scorer: Scorer, documents: torch.Tensor, toy: Any) -> LiveRetriever:
    """Documents of the base and new ones with metadata."""
    put = [toy.corpus["kettle"]._replace(metadata={"room": "kitchen", "tags": ["hot", "wet"], "price": 20})]
    put += [toy.corpus["torch"]._replace(metadata={"room": "cellar", "price": 5.0, "new": True})]
    put += [Document("mug", "", "holds tea", {"room": "kitchen", "tags": ["wet"], "price": 5, "new": 1})]
    corpus = {**toy.corpus, **{one.doc_id: one for one in put[:2]}}
    projections = Projections(scorer.encoder.width, PARAMS.dimension)
    base = Retriever.assemble(scorer, corpus, documents, PARAMS, projections)
    return LiveRetriever.of(base).changed({put[2].doc_id: put[2], "broom": None})


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter(fields={"room": ("kitchen",)}), {"kettle", "mug"}),
        (Filter(fields={"room": ("kitchen", "cellar"), "price": (5,)}), {"torch", "mug"}),
        (Filter(fields={"tags": ("hot",)}), {"kettle"}),
        (Filter(fields={"tags": (["hot", "wet"],)}), {"kettle"}),
        (Filter(fields={"new": (True,)}), {"torch"}),
        (Filter(fields={"new": (1,)}), {"mug"}),
        (Filter(frozenset({"mug", "kettle", "broom", "nothing"})), {"mug", "kettle"}),
        (Filter(frozenset({"torch", "sponge"}), {"room": ("cellar",)}), {"torch"}),
        (Filter(frozenset()), set()),
        (Filter(fields={"room": ()}), set()),
        (Filter(fields={"rooms": ("kitchen",)}), set()),
    ],
)
@pytest.mark.parametrize("exact_up_to", [100, 0])
def test_a_filter_allows_what_it_says(rooms: LiveRetriever, wanted: Filter, found: set[str], exact_up_to: int):
    """A document that a filter forbids is shown, or one that it allows is missing; in the scan or the shortlist."""
    rooms._base.params = replace(PARAMS, exact_up_to=exact_up_to, depth=2)
    everything = _scores(rooms.search([Query("tea", 50)])[0])
    filtered, free, first = rooms.search([Query("tea", 50, wanted), Query("tea", 50), Query("tea", 1, wanted)])
    assert _scores(filtered) == pytest.approx({doc_id: everything[doc_id] for doc_id in found}, abs=1e-4)
    assert len(free) == len(rooms) == 8, "the filter is of its query alone"
    assert first == filtered[:1]


def test_the_values_of_a_field_are_not_one_text(rooms: LiveRetriever):
    """A text is taken for its letters, and the filter allows nothing."""
    with pytest.raises(TypeError, match="the values of the field 'room' are 'kitchen', expected several"):
        rooms.search([Query("tea", 3, Filter(fields={"room": "kitchen"}))])


@pytest.mark.parametrize("depth", [1, 2, 20])
def test_masked_proposals_are_no_lost_answers(retriever: Retriever, toy: Any, depth: int):
    """The shortlist proposes what was removed, and the answer is shorter than the corpus allows."""
    best = [hit.doc_id for hit in retriever.search("tea", 8)]
    removed = dict.fromkeys(best[:5])
    retriever.params = replace(PARAMS, exact_up_to=0, depth=depth)
    live = LiveRetriever.of(retriever, removed)
    assert [hit.doc_id for hit in live.search([Query("tea", 3)])[0]] == best[5:]
    assert [hit.doc_id for hit in live.search([Query("tea", 3, Filter(frozenset(best[4:7])))])[0]] == best[5:7]


def test_too_few_allowed_proposals_are_followed_by_a_scan(retriever: Retriever, monkeypatch: pytest.MonkeyPatch):
    """A shortlist that proposes nearly nothing but removed documents gives poor or short answers."""
    best = [hit.doc_id for hit in retriever.search("tea", 8)]
    rows = np.array([[retriever.rows[doc_id] for doc_id in (*best[:5], best[7])]])
    retriever.params = replace(PARAMS, exact_up_to=0, depth=2)
    live = LiveRetriever.of(retriever, dict.fromkeys(best[:5]))
    monkeypatch.setattr(retriever, "shortlist", lambda states, depth: rows)
    assert [hit.doc_id for hit in live.search([Query("tea", 2)])[0]] == best[5:7]


def test_an_answer_does_not_depend_on_who_else_asks(retriever: Retriever, toy: Any):
    """A query in a batch gets more proposals than alone, because another one wants many documents."""
    retriever.params = replace(PARAMS, exact_up_to=0, depth=1)
    live = LiveRetriever.of(retriever, {"mug": Document("mug", "", "holds tea"), "broom": None})
    asked = [Query(text, k) for text in ASKED for k in (1, 2, 7)]
    together = live.search(asked)
    for query, hits in zip(asked, together, strict=True):
        (alone,) = live.search([query])
        assert [hit.doc_id for hit in alone] == [hit.doc_id for hit in hits] and len(hits) == query.k
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in hits], abs=1e-4)


@pytest.mark.parametrize(
    ("query", "error", "told"),
    [
        (Query("tea", 0), ValueError, "k of query 1 is 0"),
        (Query(" "), ValueError, "query 1 is blank"),
        (Query("caf\udce9"), ValueError, "query 1 .* is not Unicode"),
        (Query(["tea"]), TypeError, "query 1 is .*, expected one text"),
    ],
)
def test_senseless_queries_are_refused(retriever: Retriever, query: Query, error: type[Exception], told: str):
    """A batch of queries is answered, and one of them wrongly."""
    with pytest.raises(error, match=told):
        LiveRetriever.of(retriever).search([Query("tea"), query])


def test_explained_scored_and_found_alike(retriever: Retriever, toy: Any):
    """An explanation, or a rerank of ids, has another score than the search shows."""
    live = LiveRetriever.of(
        retriever, {"mug": Document("mug", "", "holds tea"), "ladder": _document("ladder", "edited")}
    )
    hits = live.search([Query("tea", 50)])[0]
    assert {hit.doc_id for hit in hits} >= {"mug", "ladder", "kettle"}
    scores = live.score_documents("tea", [hit.doc_id for hit in hits])
    for hit, score in zip(hits, scores, strict=True):
        assert live.explain("tea", hit.doc_id).total == pytest.approx(hit.score, abs=1e-4) == score
        assert live.document(hit.doc_id) == Document(hit.doc_id, hit.title, hit.text)
    assert live.score_documents("tea", []) == []


@pytest.mark.parametrize("ask", [LiveRetriever.document, lambda live, name: live.explain("tea", name)])
def test_a_removed_document_is_unknown(retriever: Retriever, ask: Any):
    """A removed document is shown and explained as if it were there."""
    live = LiveRetriever.of(retriever, {"kettle": None, "mug": Document("mug", "", "holds tea")})
    with pytest.raises(ValueError, match="no document is 'kettle', expected one of the 8 in the retriever$"):
        ask(live, "kettle")
    with pytest.raises(ValueError, match="did you mean 'mug'"):
        ask(live, "mugg")


def test_any_text_is_scored_as_a_new_document(retriever: Retriever, toy: Any):
    """A rerank of texts scores them otherwise than a search that has them as documents."""
    texts = ["holds tea", toy.corpus["kettle"].contents, "holds tea", ""]
    put = {f"new-{number}": Document(f"new-{number}", "", text) for number, text in enumerate(texts) if text}
    wanted = _scores(LiveRetriever.of(retriever, put).search([Query("tea", 50)])[0])
    found = LiveRetriever.of(retriever).score("tea", texts)
    assert found[:3] == pytest.approx([wanted[f"new-{number}"] for number in range(3)], abs=1e-4)
    assert len(found) == 4 and found[0] == found[2] != found[3]
    assert retriever.score("tea", []) == []


@pytest.mark.parametrize(
    ("query", "texts", "error", "told"),
    [
        ("tea", "text", TypeError, "expected a list of texts"),
        ("tea", [None], TypeError, r"texts\[0\] is None"),
        ("tea", ["x", "caf\udce9"], ValueError, "text 1 is .*not Unicode text"),
        (" ", ["x"], ValueError, "the query is blank"),
        (["tea"], ["x"], TypeError, "query is .*expected one text"),
    ],
)
def test_senseless_texts_are_refused(retriever: Retriever, query: Any, texts: Any, error: type[Exception], told: str):
    """A text is scored letter by letter."""
    with pytest.raises(error, match=told):
        LiveRetriever.of(retriever).score(query, texts)


def test_states_of_texts_are_kept_within_bounds():
    """A rerank encodes the same texts again, or the memory grows with all texts ever asked for."""
    states, encoded = TextStates(most_bytes=3 * 8), []

    def encode(texts: list[str]) -> torch.Tensor:
        encoded.append(texts)
        return torch.tensor([[float(len(text)), float(number)] for number, text in enumerate(texts)])

    assert states.of("e", ["a", "bb", "a"], encode).tolist() == [[1, 0], [2, 1], [1, 0]]
    assert states.of("e", ["a"], encode).tolist() == [[1, 0]] and encoded == [["a", "bb"]]
    states.of("other", ["a"], encode)
    states.of("e", ["ccc"], encode)
    assert encoded[1:] == [["a"], ["ccc"]] and len(states) == 3
    states.of("e", ["a"], encode)
    assert len(encoded) == 3, "what was asked for last is kept"
    states.of("e", ["bb"], encode)
    assert encoded[3:] == [["bb"]] and len(states) == 3
    assert states.of("e", list("abcde"), encode).shape == (5, 2) and len(states) == 3


def test_versions_with_the_same_encoder_share_states(scorer: Scorer, retriever: Retriever, toy: Any, tmp_path: Any):
    """After each promotion all texts are encoded again, or a version gets the states of another encoder."""
    first = retriever.save(tmp_path / "first", {}, {})
    with torch.no_grad():
        scorer.predictor.query_in.weight.add_(0.1)
    second = retriever.reindexed(toy.corpus).save(tmp_path / "second", {}, {})
    scorer.encoder.model.get_input_embeddings().weight.data.add_(0.1)
    third = retriever.reindexed(toy.corpus).save(tmp_path / "third", {}, {})
    params = scorer.prompt.params
    one, other, changed = (encoder_identity(manifest, params) for manifest in (first, second, third))
    assert first.hash != second.hash and one == other != changed
    assert encoder_identity(first, replace(params, document="Thing: {document}\n")) != one


def test_searching_while_documents_are_put(retriever: Retriever):
    """Requests in other threads fail, or see a mixture of two states."""
    base = LiveRetriever.of(retriever)
    wanted, faults = base.search([Query("tea", 50)]), []

    def ask() -> None:
        try:
            assert all(base.search([Query("tea", 50)]) == wanted for _ in range(20))
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    live = base
    for number in range(20):
        live = live.changed({f"n{number}": Document(f"n{number}", "", f"text {number}")})
    for thread in threads:
        thread.join()
    assert faults == [] and len(live) == len(base) + 20
