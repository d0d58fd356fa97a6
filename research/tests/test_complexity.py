"""The cost of a query: which calls are timed, what is scaled, and the picture of it."""

import numpy as np
import pytest
import torch

from rabtriever.core.vectors import top_rows
from rabtriever.evaluation.plots import draw_complexity
from rabtriever.lm.encoder import Encoder
from rabtriever.models.predictor import FoldablePredictor
from rabtriever.search.scorer import Scorer
from research import complexity
from research.complexity import QUERY_TOKENS, measure_complexity

SYSTEMS = ["teacher", "teacher_cached", "student", "biencoder"]


@pytest.fixture
def measure(backbone, prompt, monkeypatch):
    """Measures an untrained student and its teacher; a sample is four documents."""
    monkeypatch.setattr(complexity, "SAMPLE", 4)
    direction = (backbone.head_weight[prompt.yes_id] - backbone.head_weight[prompt.no_id]).detach()
    scorer = Scorer(Encoder(backbone), Encoder(backbone), prompt, FoldablePredictor(32, 12, 5, 0.0), direction)

    def run(sizes=(2, 6, 12), lengths=(3, 40, 9), repeats=2):
        return measure_complexity(backbone, prompt, scorer, sizes, lengths, repeats, np.random.default_rng(0))

    return run


@pytest.fixture
def calls(monkeypatch) -> list[object]:
    """What the timed calls return; each of them takes 8 milliseconds."""
    done: list[object] = []
    monkeypatch.setattr(complexity._Timings, "_median", lambda self, call: (done.append(call()), 8.0)[1])
    return done


def test_every_system_at_every_point(measure):
    """A line of the picture has holes, or the other quantity is not held at its middle value."""
    rows = measure()
    points = [("documents", 2, 9), ("documents", 6, 9), ("documents", 12, 9)]
    points += [("document_tokens", 6, 3), ("document_tokens", 6, 9), ("document_tokens", 6, 40)]
    found = [(row["varied"], row["documents"], row["document_tokens"]) for row in rows]
    assert found == [point for point in points for _ in SYSTEMS]
    assert [row["system"] for row in rows] == SYSTEMS * 6
    assert all(row["milliseconds"] > 0 and row["query_tokens"] == QUERY_TOKENS for row in rows)
    for row in rows:
        reads_query_alone = row["system"] in ("student", "biencoder")
        assert (row["encoding_milliseconds"] > 0) == reads_query_alone


def test_only_the_teacher_is_scaled(measure, calls):
    """A number that was not measured passes for a measured one, or is scaled by the wrong factor."""
    rows = [row for row in measure() if row["varied"] == "documents"]
    for row in rows:
        teacher = row["system"].startswith("teacher")
        sample = min(row["documents"], 4) if teacher else row["documents"]
        assert row["sample"] == sample
        assert row["extrapolated"] == (sample < row["documents"])
        assert row["milliseconds"] == 8.0 * row["documents"] / sample


def test_the_calls_score_every_document(measure, calls, monkeypatch):
    """A scan of the sample, and not of the corpus, is timed, or one that picks nothing; or the teacher reads some."""
    scored = []
    monkeypatch.setattr(complexity, "top_rows", lambda scores, k: (scored.append(scores.shape), top_rows(scores, k))[1])
    measure(sizes=[12], lengths=[9])
    shapes = [tuple(result.shape) for result in calls if isinstance(result, np.ndarray)]
    assert scored == [(1, 12)] * 4, "student and bi-encoder, at two points"
    assert shapes.count((1, 10)) == 4, "what they answer"
    assert shapes.count((1, 32)) == 4, "encoding the query, for both"
    read = [result for result in calls if isinstance(result, list)]
    assert [sorted(np.concatenate([part.pairs for part in found]).tolist()) for found in read] == [[0, 1, 2, 3]]


def test_a_document_that_does_not_fit(measure):
    """Positions beyond the model's context fail deep inside it, or are timed although nobody can use them."""
    with pytest.raises(ValueError, match=r"document of 225 tokens and a query of 32 do not fit.*context of 256"):
        measure(lengths=[5, 225])


@pytest.mark.parametrize("changes", [{"sizes": []}, {"lengths": [0]}, {"repeats": 0}])
def test_nothing_to_measure(measure, changes):
    """A median of nothing is NaN, and the picture is empty."""
    (name,) = changes
    with pytest.raises(ValueError, match=rf"{name}: found .*, expected numbers of at least 1"):
        measure(**changes)


def test_threads_are_left_alone(measure):
    """What is measured after the first scan runs on other threads than what was before it."""
    before = torch.get_num_threads()
    measure(sizes=[6], lengths=[9])
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("points", [{}, {"sizes": [6], "lengths": [9]}])
def test_picture(measure, tmp_path, points):
    """The picture fails on a single point, or is not the same for the same numbers."""
    rows = measure(**points)
    for name in ("one.png", "two.png"):
        draw_complexity(rows, tmp_path / name)
    found = (tmp_path / "one.png").read_bytes()
    assert found.startswith(b"\x89PNG") and found == (tmp_path / "two.png").read_bytes()
