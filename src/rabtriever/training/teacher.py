"""Training of the teacher: a generative reranker that reads the document, then the query, and answers yes or no.

Its state at the last prompt token, `h_T(q, d)`, is both what it scores with and what the student is trained to predict;
how it reads and scores is in reranker.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rabtriever.core.settings import bounded
from rabtriever.data.judgements import Judgements, draw
from rabtriever.lm.answer import yes_no_logit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.gradient_checkpointing import ReadPairs, read_pairs
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models.reranker import Prefix, ask, read_documents
from rabtriever.training.contrastive import no_negatives
from rabtriever.training.losses import forward_kl, in_batch_loss, listwise_loss, reranker_loss
from rabtriever.training.trainer import LanguageModelModule


@dataclass(frozen=True)
class TeacherParams:
    """Section `train_teacher` of params.yaml.

    Attributes:
        steps: optimiser steps.
        queries: queries in a step.
        positives: positives of a query, the first of them drawn by grade.
        hard_negatives: negatives drawn from the mistakes of the backbone it starts from.
        random_negatives: negatives drawn from all judged documents.
        mining_depth: hard negatives are drawn from a query's first `mining_depth` wrong documents.
        similarity: weight of cos(h_q, h_d) in the score, in nats; 0 for the paper's score.
        listwise: weight of the listwise loss of the score over a query's candidates.
        yes_no_logit: weight of the same loss on log p(yes) - log p(no) alone; without it the language model leaves the
            ranking to the similarity.
        pointwise: weight of the yes/no loss (supervised fine-tuning), on log p(yes) - log p(no).
        agreement: weight of KL(cosine || yes/no logit) over the candidates: the language model is held to the ranking
            of the two embeddings, on documents without a label too, which it would otherwise have to guess at.
        unlabelled: documents without any judgement added to a query's candidates, from its most similar ones; only the
            agreement term sees them.
        contrastive: weight of the contrastive term on states encoded alone, which keeps them useful to the student.
        temperature: of the contrastive term.
        reader_steps: optimiser steps of the reader, see reading.py; 0 leaves all reading to the teacher's own weights.
        column: weight of the reader's loss over the queries of a document.
        column_queries: other queries asked of a query's first positive document in it.
        lora_rank: 0 trains every weight; above, LoRA of that rank on all linear layers.
        gradient_checkpointing: layers are computed a second time for the gradients, which saves most of the memory; a
            document is then read anew with each of its queries. The reader does without: it keeps the activations of
            what follows the documents, not those of the documents.
        dpo_steps: optimiser steps of DPO after the fine-tuning; 0 for none.
        dpo_beta: how closely DPO is held to the fine-tuned teacher.
        dpo_learning_rate: peak learning rate of DPO.
        optimizer: `muon` for the matrices of a model trained from scratch, `adamw` for a pretrained one.
        learning_rate, weight_decay: see StepModule.
        start_share: share of the bi-encoder it starts from in the average of weights that fine-tuning ends with; see
            averaging.py.
        fit_depth: the weights of the score are then fitted on dev, over this many of a query's most similar documents;
            0 keeps them.
        document_terms: whether the fit may give weight to what the training queries tell of documents; see
            document_terms.py.
    """

    steps: int = bounded(ge=0)
    queries: int = bounded(ge=1)
    positives: int = bounded(ge=1)
    hard_negatives: int = bounded(ge=0)
    random_negatives: int = bounded(ge=0)
    mining_depth: int = bounded(ge=1)
    similarity: float = bounded(ge=0)
    listwise: float = bounded(ge=0)
    yes_no_logit: float = bounded(ge=0)
    pointwise: float = bounded(ge=0)
    agreement: float = bounded(ge=0)
    unlabelled: int = bounded(ge=0)
    contrastive: float = bounded(ge=0)
    temperature: float = bounded(gt=0)
    reader_steps: int = bounded(ge=0)
    column: float = bounded(ge=0)
    column_queries: int = bounded(ge=1)
    lora_rank: int = bounded(ge=0)
    gradient_checkpointing: bool
    dpo_steps: int = bounded(ge=0)
    dpo_beta: float = bounded(gt=0)
    dpo_learning_rate: float = bounded(gt=0)
    optimizer: Literal["adamw", "muon"]
    learning_rate: float = bounded(gt=0)
    weight_decay: float = bounded(ge=0)
    start_share: float = bounded(ge=0, le=1)
    fit_depth: int = bounded(ge=0)
    document_terms: bool


class CandidateLists(NamedTuple):
    """The candidates of a batch of queries, every field (B, C).

    Attributes:
        columns: which document of the batch each candidate is.
        documents: its row in the corpus.
        mask: False where a list has ended.
        eligible: the candidate's grade may be trained on; False for documents without any judgement.
        grades: known grades, 0 for the others.
    """

    columns: Tensor
    documents: Tensor
    mask: Tensor
    eligible: Tensor
    grades: Tensor


class TeacherBatch(NamedTuple):
    """One step's queries with their candidates.

    Attributes:
        queries: (B,) query rows.
        lists: their candidates.
        column: which document of the step each document row is.
        read: the segments that come first, by default the documents, as the model has read them.
    """

    queries: np.ndarray
    lists: CandidateLists
    column: dict[int, int]
    read: Prefix | ReadPairs


class TeacherModule(LanguageModelModule):
    """Trains the reranker on candidates of each query: listwise over grades, yes/no, and a contrastive side term.

    The documents of a step are read once and shared by its queries, as they are at inference.

    Args:
        backbone: trained in place (with LoRA: its adapters are).
        prompt: segments and answers.
        judgements: judgements of the training queries.
        query_ids: token ids per query row.
        document_ids: token ids per document row.
        mined: hard negatives and similar unjudged documents, each (Q, depth) rows, best first, -1 for none.
        params: numbers.
        seed: seed of the batches.
        encoder: reads, frozen, what comes first and what is read alone; None where the backbone does that too.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: Prompt,
        judgements: Judgements,
        query_ids: Sequence[Sequence[int]],
        document_ids: Sequence[Sequence[int]],
        mined: tuple[np.ndarray, np.ndarray],
        params: TeacherParams,
        seed: int,
        encoder: Backbone | None = None,
    ) -> None:
        super().__init__(backbone, params, seed)
        self.prompt = prompt
        self.encoder = encoder.requires_grad_(False) if encoder is not None else None
        backbone.configure(similarity=params.similarity)
        self.judgements = judgements
        self.negatives, self.unlabelled = mined
        self.query_ids, self.document_ids = query_ids, document_ids

    def losses(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """The weighted terms of one batch; a term of weight zero is not computed."""
        params = self.params
        queries, batch, column, prefix = self.batch(rng)
        yes_no_logit = self.yes_no_logit(queries, batch, prefix)
        cosine = self.cosine(queries, column, prefix)  # (B, D)
        listed = None if cosine is None else cosine.gather(1, batch.columns)  # (B, C)
        terms: dict[str, Tensor] = {}
        if params.pointwise > 0:
            terms["pointwise"] = params.pointwise * reranker_loss(yes_no_logit, batch.grades, batch.eligible)
        if params.yes_no_logit > 0:
            terms["yes_no_logit"] = params.yes_no_logit * listwise_loss(yes_no_logit, batch.grades, batch.eligible)
        if params.listwise > 0:
            scores = yes_no_logit + params.similarity * listed if params.similarity > 0 else yes_no_logit
            terms["listwise"] = params.listwise * listwise_loss(scores, batch.grades, batch.eligible)
        if params.agreement > 0:
            terms["agreement"] = params.agreement * forward_kl(yes_no_logit, listed / params.temperature, batch.mask)
        if params.contrastive > 0:
            terms["contrastive"] = self.contrastive(queries, batch, column, cosine)
        return terms

    def contrastive(self, queries: np.ndarray, batch: CandidateLists, column: dict[int, int], cosine: Tensor) -> Tensor:
        """The weighted contrastive term of a (B, D) cosine: each query's first candidate among the documents."""
        blocked = no_negatives(self.judgements, queries, column)
        scores = cosine / self.params.temperature
        return self.params.contrastive * in_batch_loss(scores, batch.columns[:, 0], blocked.to(self.device))

    def batch(self, rng: np.random.Generator) -> TeacherBatch:
        """Draws the queries of a step and their candidates, and reads what comes first."""
        queries = self.judgements.sample_queries(self.params.queries, rng)
        lists = [self.candidates(int(query), rng) for query in queries]
        column = {row: number for number, row in enumerate(dict.fromkeys(d for c in lists for d in c))}
        batch = self._lists(queries, lists, column)
        if self.encoder is not None or not self.params.gradient_checkpointing:
            return TeacherBatch(queries, batch, column, self.read(self.backbone, queries, column))
        rows, asked = self._asked(queries, batch)
        pairs = read_pairs(self.backbone, self._segments(queries, column)[0], asked, rows.tolist())
        return TeacherBatch(queries, batch, column, pairs)

    def read(self, backbone: Backbone, queries: np.ndarray, column: dict[int, int]) -> Prefix:
        """The segments of a step that come first, the documents by default, as a model reads them, or the encoder."""
        with self._frozen_encoder() as encoder:
            return read_documents(encoder or backbone, *pad(self._segments(queries, column)[0], self.device))

    @contextlib.contextmanager
    def _frozen_encoder(self) -> Iterator[Backbone | None]:
        """The encoder, without gradients and in the arithmetic of training; None, and nothing done, without one."""
        if self.encoder is None:
            yield None
            return
        self.encoder.eval().reference = True
        with torch.no_grad():
            yield self.encoder
        self.encoder.reference = False

    def _segments(self, queries: np.ndarray, column: dict[int, int]) -> tuple[list[Any], list[Any]]:
        documents = [self.document_ids[row] for row in column]
        return self.prompt.params.ordered(documents, [self.query_ids[query] for query in queries])

    def cosine(self, queries: np.ndarray, column: dict[int, int], prefix: Prefix | ReadPairs) -> Tensor | None:
        """(B, D) cosine of the embeddings of queries and documents encoded alone; None where no term needs it."""
        params = self.params
        if params.contrastive == params.agreement == params.similarity == 0:
            return None
        return self.alone(queries, column, prefix)

    def alone(self, queries: np.ndarray, column: dict[int, int], prefix: Prefix | ReadPairs) -> Tensor:
        """(B, D) cosine of the embeddings of queries and documents encoded alone."""
        ids, mask = pad(self._segments(queries, column)[1], self.device)
        with self._frozen_encoder() as encoder:
            alone = (encoder or self.backbone).embed(ids, mask)
        documents, asked = self.prompt.params.ordered(prefix.states, alone)
        return F.normalize(asked, dim=-1) @ F.normalize(documents, dim=-1).T

    def candidates(self, query: int, rng: np.random.Generator) -> list[int]:
        """Document rows a query is trained on: a positive drawn by grade, further positives, negatives, unlabelled."""
        params, grades = self.params, self.judgements.grades[query]
        chosen = [self.judgements.positive(query, rng)]
        others = [row for row in self.judgements.distinct(grades) if row != chosen[0]]
        chosen += draw(others, params.positives - 1, rng)
        chosen += draw(self.negatives[query], params.hard_negatives, rng)
        known = set(chosen) | set(grades) | self.judgements.ignored[query]
        pool = rng.choice(self.judgements.negatives, size=3 * params.random_negatives)
        chosen += [int(row) for row in dict.fromkeys(pool.tolist()) if row not in known][: params.random_negatives]
        return chosen + draw(self.unlabelled[query], params.unlabelled, rng)

    def _lists(self, queries: np.ndarray, lists: list[list[int]], column: dict[int, int]) -> CandidateLists:
        shape = (len(lists), max(len(chosen) for chosen in lists))
        columns, documents = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        mask, eligible = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
        grades = torch.zeros(shape)
        for number, (query, chosen) in enumerate(zip(queries, lists, strict=True)):
            known = self.judgements.grades[int(query)]
            part = slice(len(chosen))
            columns[number, part] = torch.tensor([column[row] for row in chosen])
            documents[number, part] = torch.tensor(chosen)
            mask[number, part] = True
            eligible[number, part] = torch.from_numpy(self.judgements.eligible(int(query), chosen))
            grades[number, part] = torch.tensor([float(known.get(row, 0)) for row in chosen])
        return CandidateLists(*(tensor.to(self.device) for tensor in (columns, documents, mask, eligible, grades)))

    def yes_no_logit(self, queries: np.ndarray, batch: CandidateLists, read: Prefix | ReadPairs) -> Tensor:
        """(B, C) log p(yes) - log p(no) of the candidates, 0 where there is none."""
        if isinstance(read, ReadPairs):
            return self._in_place(self.backbone, read.asked, batch)
        return self.yes_no_logit_of(self.backbone, queries, batch, read)

    def yes_no_logit_of(self, backbone: Backbone, queries: np.ndarray, batch: CandidateLists, prefix: Prefix) -> Tensor:
        """(B, C) yes/no logits of the candidates by any model, which has read the first segments; 0 where none is."""
        rows, asked = self._asked(queries, batch)
        return self._in_place(backbone, ask(backbone, prefix, rows, *pad(asked, self.device)), batch)

    def _in_place(self, backbone: Backbone, states: Tensor, batch: CandidateLists) -> Tensor:
        """(B, C) yes/no logits, from the context query states (P, H) of the candidates that there are."""
        flat = yes_no_logit(states, backbone.head_weight, self.prompt.yes_id, self.prompt.no_id)
        return torch.zeros(batch.mask.shape, device=self.device, dtype=flat.dtype).masked_scatter(batch.mask, flat)

    def _asked(self, queries: np.ndarray, batch: CandidateLists) -> tuple[Tensor, list[Any]]:
        """Of each of the P candidates, which first segment it follows, (P,), and its own second segment."""
        asking = batch.mask.nonzero()[:, 0]  # (P,) which query of the step
        return self.following(queries, asking, batch.columns[batch.mask], batch.documents[batch.mask])

    def following(
        self, queries: np.ndarray, asking: Tensor, columns: Tensor, documents: Tensor
    ) -> tuple[Tensor, list[Any]]:
        """Of each of P pairs of a step, which first segment it follows, (P,), and its own second segment.

        Args:
            queries: (B,) query rows of the step.
            asking: (P,) places in `queries`.
            columns: (P,) places of their documents among those of the step.
            documents: (P,) rows of their documents.
        """
        rows, _ = self.prompt.params.ordered(columns, asking)
        read = [self.document_ids[row] for row in documents.tolist()]
        asked = [self.query_ids[queries[number]] for number in asking.tolist()]
        return rows, self.prompt.params.ordered(read, asked)[1]
