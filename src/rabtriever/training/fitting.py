"""The weights of the terms of a score, fitted on dev queries once the models are trained.

How far a language model's yes/no logit can be trusted depends on the data: where every document was judged in training
it may rank better than the similarity, on documents it has never seen it may say little. The same is true of what the
training queries tell about documents. Dev queries tell it: the weights maximise the likelihood of their judgements
under a softmax over a query's candidates, which is convex, and few queries do not move them far from the similarity
alone. No weight is negative: a term that dev would turn around is one whose reading is wrong there.

Some documents of a corpus may be unseen: no training query names them. A dev set that was split off by query asks for
none of these, so its judgements alone would say that an unseen document is never right. The fit therefore reads the
judgements several times and each time treats a few documents as unseen: what the training queries tell of them is left
out (cold-start dropout).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rabtriever.core.vectors import top_rows, unit
from rabtriever.data.judgements import Judgements, most, without
from rabtriever.data.metrics import score_queries, summarise
from rabtriever.lm.backbone import Backbone
from rabtriever.models.document_terms import QueryMemory, ScoreWeights, remember, term_features
from rabtriever.models.reranker import Reranker
from rabtriever.training.inputs import TrainingInputs

TERMS = ("similarity", "yes_no_logit", "memory", "attraction", "prior")
PULL = 3.0  # strength of the pull towards the similarity alone, in judged queries
LEAST_SIMILARITY = 0.1  # of its start: the other terms are added to it, and it stays
MEMORY_REACH = 0.3  # weight of the memory in the second ranking that candidates are taken from
DRAWS = 8  # times that the dev judgements are read, each with other documents treated as unseen
NEW_SHARE = 0.1  # of the documents, the most that one of them treats as unseen
TOLD = np.isin(TERMS, ("memory", "prior"))  # what the training queries tell of the documents they are judged for


class DevCandidates(NamedTuple):
    """What is known of the candidates of dev queries.

    Attributes:
        features: (Q, C, 5) the TERMS, each in nats at weight 1.
        rows: (Q, C) document rows.
        mask: (Q, C) False where a list has ended.
        grades: (Q, C).
    """

    features: np.ndarray
    rows: np.ndarray
    mask: np.ndarray
    grades: np.ndarray


class Fit(NamedTuple):
    """Fitted weights, and what they do to the ranking of the dev candidates.

    Attributes:
        weights: of the terms.
        ndcg: nDCG@10 in per cent, with every document as it is.
        similarity_ndcg: nDCG@10 in per cent by the similarity alone.
        new_share: share of the documents that each reading treated as unseen.
    """

    weights: ScoreWeights
    ndcg: float
    similarity_ndcg: float
    new_share: float


def fit_on_dev(
    inputs: TrainingInputs,
    backbone: Backbone,
    terms: Sequence[str],
    depth: int,
    temperature: float,
    batch_size: int,
    reranker: Reranker | None = None,
) -> tuple[Fit, np.ndarray, QueryMemory]:
    """Fits the weights of a score on the dev queries of a data set.

    Args:
        inputs: the data, tokenised.
        backbone: encodes texts alone.
        terms: see `fit_weights`.
        depth: see `dev_candidates`.
        temperature: divides cosines in the fit.
        batch_size: sequences, or pairs, in one forward pass.
        reranker: reads the candidates; None for a score without yes_no_logit.

    Returns:
        The fit, the (N, H) states of the documents, and the memory of the training queries.
    """
    dataset = inputs.dataset
    dev = Judgements.build(dataset.corpus, dataset.qrels["dev"], dataset.queries)
    query_ids = inputs.prompt.query.ids(dev.texts(dataset.queries))
    memory = remember(backbone.encode(inputs.query_ids, batch_size), inputs.judgements.grades)
    states = backbone.encode(inputs.document_ids, batch_size)
    found = dev_candidates(dev, backbone.encode(query_ids, batch_size), states, memory, depth, temperature)
    if reranker is not None:
        found = with_yes_no_logit(found, reranker, query_ids, inputs.document_ids, batch_size)
    new_share = share_to_treat_as_unseen(memory, dev, len(states))
    return fit_weights(found, dev, terms, temperature, new_share), states, memory


def share_to_treat_as_unseen(memory: QueryMemory, dev: Judgements, num_documents: int) -> float:
    """Share of unseen documents that dev lacks: that of the corpus, `NEW_SHARE` at most, less that of dev's answers.

    Args:
        memory: of the training queries, which knows the documents that they name.
        dev: the dev judgements.
        num_documents: of the corpus, more than none.
    """
    asked = [row for grades in dev.grades for row, grade in grades.items() if grade > 0]
    new = 1 - np.isin(asked, memory.rows).mean() if asked else 1.0
    return max(0.0, float(min(NEW_SHARE, 1 - len(memory.rows) / num_documents) - new))


def fit_weights(
    found: DevCandidates, judged: Judgements, terms: Sequence[str], temperature: float, new_share: float = 0.0
) -> Fit:
    """The weights that the dev judgements are likeliest under.

    Args:
        found: candidates of the dev queries.
        judged: the dev judgements.
        terms: which of the TERMS may have a weight beside the similarity.
        temperature: cosines were divided by it; the weights are given for plain ones.
        new_share: share of the documents to treat as unseen in each of `DRAWS` readings of the judgements; 0 for one
            reading of the judgements as they are.
    """
    from scipy.optimize import minimize

    usable = DevCandidates(*(part[(found.grades * found.mask).sum(1) > 0] for part in found))
    readings, mask = _readings(usable, new_share), usable.mask
    wanted = (usable.grades * mask).astype(np.float64)
    wanted /= np.maximum(wanted.sum(1, keepdims=True), 1e-12)
    start = np.zeros(len(TERMS))
    start[0] = 1.0
    bounds = [(LEAST_SIMILARITY, None), *((0.0, None if name in terms else 0.0) for name in TERMS[1:])]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        away = weights - start
        value, gradient = PULL * (away @ away), 2 * PULL * away
        for features in readings:
            scores = np.where(mask, features @ weights, -np.inf)
            top = scores.max(1, keepdims=True) if len(scores) else scores
            shares = np.exp(scores - top)
            total = shares.sum(1, keepdims=True)
            likely = np.where(mask, scores - top - np.log(total), 0.0)
            told = np.einsum("qc,qcf->f", shares / total - wanted, features)
            value, gradient = value - (wanted * likely).sum() / len(readings), gradient + told / len(readings)
        return float(value), gradient

    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    units = {
        "similarity": temperature,
        "yes_no_logit": 1.0,
        "memory": temperature,
        "attraction": temperature,
        "prior": 1.0,
    }
    weights = ScoreWeights(**{name: float(value) / units[name] for name, value in zip(TERMS, best, strict=True)})
    return Fit(weights, _ndcg(judged, found, best), _ndcg(judged, found, start), new_share)


def _readings(found: DevCandidates, new_share: float) -> list[np.ndarray]:
    """The features (Q, C, 5) of the candidates as they are, or `DRAWS` times with some documents treated as unseen."""
    features = found.features.astype(np.float64)
    if new_share == 0:
        return [features]
    rng = np.random.default_rng(0)
    new = rng.random((DRAWS, found.rows.max(initial=0) + 1)) < new_share
    return [np.where(drawn[found.rows][..., None] & TOLD, 0.0, features) for drawn in new]


def dev_candidates(
    judged: Judgements,
    query_embeddings: np.ndarray,
    document_embeddings: np.ndarray,
    memory: QueryMemory,
    depth: int,
    temperature: float,
) -> DevCandidates:
    """The candidates of dev queries with all features but the yes/no logit, which is zero.

    They are a query's `depth` most similar documents, and the `depth` most similar with the memory. Documents that are
    ignored for the query are left out.

    Args:
        judged: the dev judgements.
        query_embeddings: (Q, H) of its query rows, alone.
        document_embeddings: (N, H), alone.
        memory: of the training queries.
        depth: see above.
        temperature: divides cosines.
    """
    queries, documents = unit(query_embeddings), unit(document_embeddings)
    terms = term_features(document_embeddings, memory)
    cosine, remembered = queries @ documents.T, queries @ terms.memory.T
    deep = depth + most(judged.ignored)
    both = top_rows(cosine, deep).tolist(), top_rows(cosine + MEMORY_REACH * remembered, deep).tolist()
    lists = [
        list(dict.fromkeys([*without(near, ignored, depth), *without(with_memory, ignored, depth)]))
        for near, with_memory, ignored in zip(*both, judged.ignored, strict=True)
    ]
    rows = np.zeros((len(lists), max(len(one) for one in lists)), dtype=np.int64)
    mask = np.zeros(rows.shape, dtype=bool)
    for number, one in enumerate(lists):
        rows[number, : len(one)], mask[number, : len(one)] = one, True
    grades = np.array(
        [[known.get(row, 0) for row in one] for known, one in zip(judged.grades, rows.tolist(), strict=True)],
        dtype=np.float32,
    )
    features = np.zeros((*rows.shape, len(TERMS)), dtype=np.float32)
    for place, pairwise in ((0, cosine), (2, remembered)):
        features[..., place] = np.take_along_axis(pairwise, rows, axis=1) / temperature
    features[..., 3] = -terms.attraction[rows] / temperature
    features[..., 4] = terms.prior[rows]
    return DevCandidates(features, rows, mask, grades)


def with_yes_no_logit(
    found: DevCandidates,
    reranker: Reranker,
    query_ids: Sequence[Sequence[int]],
    document_ids: Sequence[Sequence[int]],
    batch_size: int,
) -> DevCandidates:
    """The candidates with the yes/no logit, log p(yes) - log p(no), of the teacher or its reader filled in.

    Args:
        found: candidates.
        reranker: reads them; its weights are not used.
        query_ids: token ids of each of their query rows.
        document_ids: token ids of each document row.
        batch_size: pairs in one forward pass.
    """
    places = np.argwhere(found.mask)
    pairs = np.stack([places[:, 0], found.rows[found.mask]], axis=1)
    features = found.features.copy()
    for part in reranker.yes_no_logits(query_ids, document_ids, pairs, batch_size, "train_teacher: dev queries"):
        queries, columns = places[part.pairs].T
        features[queries, columns, TERMS.index("yes_no_logit")] = part.scores
    return found._replace(features=features)


def _ndcg(judged: Judgements, found: DevCandidates, weights: np.ndarray) -> float:
    names, scores = judged.doc_ids, found.features @ weights
    qrels: dict[str, Mapping[str, int]] = {
        query_id: {names[row]: grade for row, grade in grades.items()}
        for query_id, grades in zip(judged.query_ids, judged.grades, strict=True)
    }
    run = {
        query_id: {names[row]: float(score) for row, score, kept in zip(rows, values, used, strict=True) if kept}
        for query_id, rows, values, used in zip(judged.query_ids, found.rows.tolist(), scores, found.mask, strict=True)
    }
    return summarise(score_queries(qrels, run))["nDCG@10"]
