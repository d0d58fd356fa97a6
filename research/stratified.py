"""Stratified candidates: documents that cover the whole range of the teacher's scores (arXiv 2604.04734).

The teacher scores a larger pool of random documents. Of each query's pool those stay that lie nearest to evenly spaced
points between its lowest and its highest score. Known positives stay as well, as in the stage mine.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from rabtriever.core.artifacts import check_parent, read_manifest
from rabtriever.core.settings import load_sections
from rabtriever.core.stages import Paths
from rabtriever.models.reranker import Reranker
from rabtriever.training.embeddings import read_embeddings
from rabtriever.training.inputs import prepared_data, training_inputs
from rabtriever.training.mining import select_candidates
from rabtriever.training.model_io import open_model
from rabtriever.training.stages.mine_candidates import Sections
from rabtriever.training.teacher_labels import TeacherLabels, label_candidates, read_candidates, save_candidates

POOL = 4  # times as many documents as a query's list has without its positives


def mine_stratified(paths: Paths, target: str) -> None:
    """Writes candidates of the same queries, and as many of each, as those of the stage mine.

    Args:
        paths: of the workspace.
        target: folder that is written.
    """
    sections = load_sections(Sections, paths.params)
    params, rng = sections.mine, np.random.default_rng((sections.random.seed, 1))
    dataset, data = prepared_data(paths.prepared)
    model, prompt, teacher = open_model(paths.teacher, "teacher", sections.prompt, data)
    encoder, _, biencoder = open_model(paths.biencoder, "biencoder", sections.prompt, data)
    check_parent(read_manifest(paths.embeddings, "embeddings"), "biencoder", biencoder.hash)
    inputs, embeddings = training_inputs(dataset, prompt), read_embeddings(paths.embeddings, len(dataset.corpus))
    mined, query_embeddings, _ = read_candidates(paths.candidates)
    rows, count = mined.query_rows, params.depth + params.random
    judged = inputs.judgements
    grades, ignored = [judged.grades[row] for row in rows], [judged.ignored[row] for row in rows]
    pool_params = dataclasses.replace(params, depth=0, random=POOL * count)
    nothing = np.empty((len(rows), 0), dtype=np.int64)
    pool = select_candidates(nothing, grades, ignored, judged.first_copy, pool_params, rng)
    texts = Reranker(model, prompt, encoder), inputs, rows, pool, params.batch_size, "stratified: teacher"
    labels = stratified(label_candidates(*texts, embeddings), [set(one) for one in grades], count)
    save_candidates(target, labels, query_embeddings, {"data": data, "teacher": teacher.hash})


def stratified(labels: TeacherLabels, positives: list[set[int]], count: int) -> TeacherLabels:
    """Of each query's candidates its positives, and `count` others whose scores cover the range of the others."""
    width = labels.candidates.shape[1]
    places = np.full((len(labels.candidates), width), -1, dtype=np.int64)
    for number, (rows, scores, known) in enumerate(zip(labels.candidates, labels.scores, positives, strict=True)):
        own = [place for place in range(width) if rows[place] in known]
        others = [place for place in range(width) if rows[place] >= 0 and rows[place] not in known]
        kept = own + [others[place] for place in spread_over_range(scores[others], count)]
        places[number, : len(kept)] = kept
    places = places[:, : int((places >= 0).sum(1).max())]
    index = places.clip(min=0)
    candidates = np.where(places >= 0, np.take_along_axis(labels.candidates, index, 1), -1)
    return TeacherLabels(
        labels.query_rows,
        candidates,
        np.take_along_axis(labels.states, index[..., None], 1),
        np.take_along_axis(labels.scores, index, 1),
        labels.facts,
    )


def spread_over_range(scores: np.ndarray, count: int) -> list[int]:
    """Places of `count` scores, each the nearest unused one to one of as many evenly spaced points of their range."""
    if len(scores) <= count:
        return list(range(len(scores)))
    free, chosen = np.ones(len(scores), dtype=bool), []
    for point in np.linspace(scores.max(), scores.min(), count):
        distance = np.where(free, np.abs(scores - point), np.inf)
        chosen.append(int(distance.argmin()))
        free[chosen[-1]] = False
    return chosen
