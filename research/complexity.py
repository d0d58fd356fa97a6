"""What one query costs online: the teacher, the student and the bi-encoder, as corpus and documents grow.

Every number is a timed call of the code that serves. Texts are random tokens, which cost what any others do. A teacher
reads documents one after another, so what a sample of them costs is scaled to the corpus; such rows say so.

On a CPU inner products are numpy's, the rest runs on torch's threads: set OMP_NUM_THREADS, which both keep to, to
compare them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rabtriever.core.vectors import top_rows, unit
from rabtriever.lm.backbone import Backbone
from rabtriever.lm.padding import pad
from rabtriever.lm.prompt import Prompt
from rabtriever.models.document_terms import ScoreWeights, encoded_documents
from rabtriever.models.predictor import FoldedDocuments
from rabtriever.models.reranker import PREFIX_BATCH, Reranker, ask, read_documents
from rabtriever.search.scorer import Scorer, inner_products, on_device

SAMPLE = 64  # documents that are really read
QUERY_TOKENS = 32
PICKED = 10  # documents of an answer


def measure_complexity(
    backbone: Backbone,
    prompt: Prompt,
    scorer: Scorer,
    sizes: Sequence[int],
    lengths: Sequence[int],
    repeats: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The cost of one query at each corpus size, and at each document length.

    While one is varied the other is held at the middle one of its sorted values. Folded documents and document states
    of a corpus are drawn with repetition from a sample of `SAMPLE` documents; a million of them take some gigabytes.

    Args:
        backbone: the teacher; its states also serve as the bi-encoder's.
        prompt: segments and answers.
        scorer: the student.
        sizes: numbers of documents.
        lengths: document lengths in tokens.
        repeats: timed calls behind each median, after one to warm up.
        rng: draws the tokens and the documents.

    Returns:
        A row for each system and point:
            system: `teacher` reads documents and query, `teacher_cached` has the documents' keys and values in memory,
                `student` is the exact scan of folded documents, `biencoder` the scan of inner products.
            varied: `documents` or `document_tokens`.
            documents, document_tokens, query_tokens: the point.
            milliseconds: to score all documents and to pick the best ones, once the query is encoded; a teacher's
                picking, which is the same, is left out.
            encoding_milliseconds: to encode the query; 0 for the teacher, which reads it after each document.
            sample: documents that were timed; where fewer than `documents`, `extrapolated` is true.

    Raises:
        ValueError: nothing to measure, a prompt that begins with the query, or a document and a query that do not fit
            the model's context.
    """
    _check(backbone, prompt, sizes, lengths, repeats)
    size, length = (sorted(values)[len(values) // 2] for values in (sizes, lengths))
    timings = _Timings(backbone, prompt, scorer, repeats, rng)
    points = [("documents", count, length) for count in sorted(sizes)]
    points += [("document_tokens", size, tokens) for tokens in sorted(lengths)]
    rows = []
    for varied, documents, tokens in points:
        for system, measured in timings.point(documents, tokens).items():
            point = {"varied": varied, "documents": documents, "document_tokens": tokens, "query_tokens": QUERY_TOKENS}
            rows.append({"system": system, **point, **measured, "extrapolated": measured["sample"] < documents})
    return rows


class _Timings:
    """The timed calls; the teacher's are kept, because its cost is the same for every corpus of its documents."""

    def __init__(
        self, backbone: Backbone, prompt: Prompt, scorer: Scorer, repeats: int, rng: np.random.Generator
    ) -> None:
        self.backbone, self.scorer, self.repeats, self.rng = backbone.eval(), scorer, repeats, rng
        self.reranker = Reranker(backbone, prompt)
        self.query = self._tokens(1, QUERY_TOKENS)[0]
        self._sampled: dict[tuple[int, int], tuple[float, float]] = {}

    def point(self, documents: int, tokens: int) -> dict[str, dict[str, Any]]:
        """The measured fields of every system at one corpus size and document length."""
        sample = min(documents, SAMPLE)
        if (sample, tokens) not in self._sampled:
            self._sampled[sample, tokens] = self._teacher(self._tokens(sample, tokens))
        scale = documents / sample
        read, asked = (scale * milliseconds for milliseconds in self._sampled[sample, tokens])
        found = {
            "teacher": {"milliseconds": read, "encoding_milliseconds": 0.0, "sample": sample},
            "teacher_cached": {"milliseconds": asked, "encoding_milliseconds": 0.0, "sample": sample},
        }
        texts = self._tokens(sample, tokens)
        rows = torch.from_numpy(self.rng.integers(sample, size=documents))
        scans = {"student": (self.scorer.encoder, self._student), "biencoder": (self.backbone, self._biencoder)}
        for system, (encoder, scan) in scans.items():
            found[system] = {
                "milliseconds": scan(texts, rows),
                "encoding_milliseconds": self._median(lambda encoder=encoder: encoder.encode([self.query], 1)),
                "sample": documents,
            }
        return found

    @torch.no_grad()
    def _teacher(self, texts: list[list[int]]) -> tuple[float, float]:
        """Milliseconds of one query with all texts: reading them, and with their keys and values at hand."""
        pairs = np.stack([np.zeros(len(texts), dtype=np.int64), np.arange(len(texts))], axis=1)
        stored = encoded_documents(self.backbone.encode(texts, PREFIX_BATCH), ScoreWeights())
        given = [self.query], texts, pairs, PREFIX_BATCH
        read = self._median(lambda: list(self.reranker.annotate(*given, encoded=stored)))
        device = self.backbone.device
        chunks = [texts[start : start + PREFIX_BATCH] for start in range(0, len(texts), PREFIX_BATCH)]
        prefixes = [read_documents(self.backbone, *pad(chunk, device)) for chunk in chunks]

        def asked() -> None:
            for chunk, prefix in zip(chunks, prefixes, strict=True):
                ids, mask = pad([self.query] * len(chunk), device)
                ask(self.backbone, prefix, torch.arange(len(chunk), device=device), ids, mask).cpu()

        return read, self._median(asked)

    def _student(self, texts: list[list[int]], rows: torch.Tensor) -> float:
        states = torch.from_numpy(self.scorer.document_encoder.encode(texts, PREFIX_BATCH))
        encoded = encoded_documents(states, ScoreWeights(), width=self.backbone.width)
        folded = on_device(FoldedDocuments(*(tensor[rows] for tensor in self.scorer.fold(encoded))))
        query = torch.from_numpy(self.scorer.encoder.encode([self.query], 1))
        return self._median(lambda: top_rows(self.scorer.scores(query, folded), PICKED))

    def _biencoder(self, texts: list[list[int]], rows: torch.Tensor) -> float:
        products = inner_products(unit(self.backbone.encode(texts, PREFIX_BATCH))[rows.numpy()])
        query = unit(self.backbone.encode([self.query], 1))
        return self._median(lambda: top_rows(products(query), PICKED))

    def _tokens(self, count: int, length: int) -> list[list[int]]:
        return self.rng.integers(len(self.backbone.head_weight), size=(count, length)).tolist()

    def _median(self, call: Callable[[], object]) -> float:
        """Median milliseconds of a call, after one to warm up."""
        call()
        spent = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            call()
            spent.append(time.perf_counter() - start)
        return 1000 * float(np.median(spent))


def _check(backbone: Backbone, prompt: Prompt, sizes: Sequence[int], lengths: Sequence[int], repeats: int) -> None:
    if prompt.params.order != "document_first":
        raise ValueError(f"prompt.order is {prompt.params.order}, expected document_first: documents are cached here")
    for name, values in (("sizes", sizes), ("lengths", lengths), ("repeats", [repeats])):
        if not values or min(values) < 1:
            raise ValueError(f"{name}: found {list(values)}, expected numbers of at least 1")
    if max(lengths) + QUERY_TOKENS > backbone.context:
        raise ValueError(
            f"a document of {max(lengths)} tokens and a query of {QUERY_TOKENS} do not fit the model's context of "
            f"{backbone.context}: measure shorter documents"
        )
