"""The reranker: reading a document once must change nothing, and a score is what plain transformers says."""

import numpy as np
import pytest
import torch

from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import last_states, pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models import reranker
from rabtriever.models.reranker import Reranker, ask, read_documents
from tests.language_models import small_bert, small_llama

TOLERANCE = 2e-5  # float32, states of unit variance; the cache changes the shapes, and so the order of sums


@pytest.fixture(params=["qwen2", "llama", "bert"])
def any_backbone(request, backbone, tokenizer) -> Backbone:
    """The built-in backbone, and two that a user may bring."""
    if request.param == "qwen2":
        return backbone
    return Backbone({"llama": small_llama, "bert": small_bert}[request.param](len(tokenizer)), tokenizer).eval()


def all_pairs(queries, documents) -> np.ndarray:
    """(Q * D, 2) query and document indices, shuffled."""
    pairs = [(query, document) for query in range(len(queries)) for document in range(len(documents))]
    return np.random.default_rng(0).permutation(np.array(pairs))


def test_cached_equals_concatenated(any_backbone, query_ids, document_ids):
    """A query read after cached keys sees padding, or stands at other positions than in one text."""
    pairs = all_pairs(query_ids, document_ids)
    expected = any_backbone.encode([document_ids[d] + query_ids[q] for q, d in pairs], 16)
    with torch.no_grad():
        prefix = read_documents(any_backbone, *pad(document_ids))
        asked = ask(any_backbone, prefix, torch.from_numpy(pairs[:, 1]), *pad([query_ids[q] for q in pairs[:, 0]]))
    np.testing.assert_allclose(asked.numpy(), expected, atol=TOLERANCE)
    assert np.abs(expected[0] - expected[1]).max() > 100 * TOLERANCE


def test_cached_equals_the_two_segments_at_once(any_backbone, query_ids, document_ids):
    """Attention within segments: a document read before sees the query, or a query not the whole of itself."""
    any_backbone.configure(attention="segment")
    pairs = all_pairs(query_ids, document_ids)
    ids, mask = pad([document_ids[d] + query_ids[q] for q, d in pairs])
    lengths = torch.tensor([len(document_ids[d]) for _, d in pairs])
    with torch.no_grad():
        expected = last_states(any_backbone.hidden_states(ids, mask, lengths), mask)
        prefix = read_documents(any_backbone, *pad(document_ids))
        asked = ask(any_backbone, prefix, torch.from_numpy(pairs[:, 1]), *pad([query_ids[q] for q in pairs[:, 0]]))
    np.testing.assert_allclose(asked.numpy(), expected.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(prefix.states.numpy(), any_backbone.encode(document_ids, 3), atol=TOLERANCE)


def test_asking_does_not_change_the_cache(backbone, query_ids, document_ids):
    """The second query read after a document sees the first one too."""
    with torch.no_grad():
        prefix = read_documents(backbone, *pad(document_ids[:2]))
        rows = torch.tensor([0, 1])
        first = ask(backbone, prefix, rows, *pad(query_ids[:2]))
        ask(backbone, prefix, rows, *pad(query_ids[2:4]))
        assert torch.equal(ask(backbone, prefix, rows, *pad(query_ids[:2])), first)


def test_the_document_state_is_that_of_the_document_alone(any_backbone, query_ids, document_ids):
    """What the index stores is not the state that the teacher passes through: the student learns from other input."""
    alone = any_backbone.encode(document_ids, 3)
    with torch.no_grad():
        states = read_documents(any_backbone, *pad(document_ids)).states.numpy()
        within = [
            any_backbone.hidden_states(*pad([ids + query_ids[number]]))[0, len(ids) - 1].numpy()
            for number, ids in enumerate(document_ids)
        ]
    np.testing.assert_allclose(states, alone, atol=TOLERANCE)
    np.testing.assert_allclose(np.stack(within), alone, atol=TOLERANCE)


def test_gradient_through_the_cache_is_that_of_the_concatenation(backbone, query_ids, document_ids):
    """Keys and values are detached in the cache: the gradient lacks the document's share."""
    for cached in (True, False):
        backbone.zero_grad()
        if cached:
            prefix = read_documents(backbone, *pad(document_ids[:2]))
            states = ask(backbone, prefix, torch.tensor([0, 1]), *pad(query_ids[:2]))
        else:
            states = backbone.embed(*pad([d + q for d, q in zip(document_ids[:2], query_ids[:2], strict=True)]))
        states[:, 0].sum().backward()
        found = torch.cat([parameter.grad.flatten() for parameter in backbone.parameters()])
        if cached:
            first = found.clone()
    assert torch.allclose(first, found, atol=1e-4 * float(found.abs().max()))


def direct_scores(model: Backbone, prompt, queries, documents) -> np.ndarray:
    """(Q, D) log p(yes) - log p(no) by plain transformers, one pair after another."""
    scores = np.empty((len(queries), len(documents)))
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            with torch.no_grad():
                log_p = model.model(input_ids=torch.tensor([document + query])).logits[0, -1].log_softmax(-1)
            scores[q, d] = log_p[prompt.yes_id] - log_p[prompt.no_id]
    return scores


def all_scores(model: Backbone, prompt, queries, documents, biencoder: Backbone | None = None) -> np.ndarray:
    """(Q, D) scores of all pairs, as the reranker gives them; without a bi-encoder the cosine is of the model."""
    pairs = all_pairs(queries, documents)
    scores = np.empty((len(queries), len(documents)), dtype=np.float32)
    for part in Reranker(model, prompt, biencoder or model).score_pairs(queries, documents, pairs, 32):
        scores[tuple(pairs[part.pairs].T)] = part.scores
    return scores


@pytest.mark.parametrize("group", [3, 32])
def test_every_pair_is_scored_once(backbone, prompt, query_ids, document_ids, monkeypatch, group):
    """Pairs are lost or mixed up between groups of documents; or the batch size changes what the teacher says."""
    monkeypatch.setattr(reranker, "PREFIX_BATCH", group)
    teacher = Reranker(backbone, prompt, backbone)
    queries, documents = query_ids[:5], document_ids[:7]
    pairs = all_pairs(queries, documents)
    expected = direct_scores(backbone, prompt, queries, documents)[pairs[:, 0], pairs[:, 1]]
    states = backbone.encode([documents[d] + queries[q] for q, d in pairs], 8)
    for batch_size in (1, 4, 1000):
        parts = list(teacher.score_pairs(queries, documents, pairs, batch_size))
        order = np.concatenate([part.pairs for part in parts])
        assert sorted(order.tolist()) == list(range(len(pairs)))
        assert all(len(part.pairs) <= batch_size for part in parts)
        np.testing.assert_allclose(np.concatenate([part.scores for part in parts]), expected[order], atol=1e-4)
        np.testing.assert_allclose(np.concatenate([part.states for part in parts]), states[order], atol=TOLERANCE)


def test_a_few_pairs(backbone, prompt, query_ids, document_ids):
    """Documents without a pair are read, a repeated pair is answered once, or no pair at all is an error."""
    reranker = Reranker(backbone, prompt, backbone)
    pairs = np.array([[4, 6], [0, 2], [4, 6], [1, 2]])
    expected = direct_scores(backbone, prompt, query_ids, document_ids)[pairs[:, 0], pairs[:, 1]]
    found = np.full(4, np.nan)
    for part in reranker.score_pairs(query_ids, document_ids, pairs, 3):
        found[part.pairs] = part.scores
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert list(reranker.score_pairs(query_ids, document_ids, np.zeros((0, 2), int), 3)) == []


def test_a_score_is_the_head_on_a_state(backbone, prompt, query_ids, document_ids):
    """The score and the state that the student learns to predict come from different places."""
    pairs = np.array([[0, 0], [1, 3]])
    (part,) = Reranker(backbone, prompt, backbone).score_pairs(query_ids, document_ids, pairs, 8)
    head = backbone.head_weight.detach().numpy()
    np.testing.assert_allclose(part.states @ (head[prompt.yes_id] - head[prompt.no_id]), part.scores, atol=1e-5)


def test_score_is_yes_no_logit_and_similarity(any_backbone, prompt_params, toy):
    """The similarity is added in training and forgotten when pairs are scored, or taken of other states."""
    prompt = Prompt(any_backbone.tokenizer, prompt_params, any_backbone.context)
    queries = prompt.query.ids(list(toy.queries.values())[:3])
    documents = prompt.document.ids([document.contents for document in toy.corpus.values()])
    pairs = np.array([(q, d) for q in range(3) for d in (0, 4, 7)])
    scores = {}
    for pooling in ("last", "mean"):
        for weight in (0.0, 7.0):
            any_backbone.configure(similarity=weight, pooling=pooling)
            found = np.empty(len(pairs), dtype=np.float32)
            for part in Reranker(any_backbone, prompt, any_backbone).score_pairs(queries, documents, pairs, 4):
                found[part.pairs] = part.scores
            scores[weight] = found
        asked, read = any_backbone.encode(queries, 3), any_backbone.encode(documents, 8)
        cosine = torch.cosine_similarity(torch.from_numpy(asked[pairs[:, 0]]), torch.from_numpy(read[pairs[:, 1]]))
        assert np.allclose(scores[7.0] - scores[0.0], 7.0 * cosine.numpy(), atol=1e-3)


def test_embeddings_of_the_corpus_are_looked_up_by_row(backbone, prompt, query_ids, document_ids, monkeypatch):
    """Mining gives a document another one's cosine; or it encodes the corpus a second time for each part of it."""
    pairs = np.array([[3, 6], [0, 1], [3, 1]])
    known = np.eye(8, 32, dtype=np.float32)[::-1] * 7.0  # row d has a 1 at 7 - d
    backbone.configure(similarity=0.0)
    plain, found = np.empty(3), np.empty(3)
    for part in Reranker(backbone, prompt, backbone).score_pairs(query_ids, document_ids, pairs, 2):
        plain[part.pairs] = part.scores
    backbone.configure(similarity=5.0)
    asked = backbone.encode(query_ids, 4)
    encoded, encode = [], Backbone.encode
    monkeypatch.setattr(Backbone, "encode", lambda self, ids, *rest: encoded.extend(ids) or encode(self, ids, *rest))
    for part in Reranker(backbone, prompt, backbone).score_pairs(query_ids, document_ids, pairs, 2, None, known):
        found[part.pairs] = part.scores
    wanted = [5.0 * asked[q, 7 - d] / np.linalg.norm(asked[q]) for q, d in pairs]
    np.testing.assert_allclose(found - plain, wanted, atol=1e-4)
    assert encoded == [query_ids[0], query_ids[3]], "each query once, and no document"


@pytest.mark.parametrize("size", [1, 2, 100])
def test_cosines_in_parts(backbone, prompt, query_ids, document_ids, monkeypatch, size):
    """Of millions of pairs, those after the first part have no cosine."""
    backbone.configure(similarity=9.0)
    pairs = all_pairs(query_ids[:3], document_ids[:2])
    monkeypatch.setattr(reranker, "PAIR_BLOCK", size)
    found = Reranker(backbone, prompt, backbone)._cosines(query_ids, document_ids, pairs, 4, None)
    asked, read = (torch.from_numpy(backbone.encode(ids, 4)) for ids in (query_ids, document_ids))
    wanted = torch.cosine_similarity(asked[pairs[:, 0]], read[pairs[:, 1]])
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
