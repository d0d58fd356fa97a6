"""The calibration of a retriever: from score to probability, and its file in the retriever folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, write_manifest
from rabtriever.search.calibration import (
    CALIBRATION,
    UNCALIBRATED,
    Calibration,
    read_calibration,
    write_calibration,
)
from rabtriever.search.retriever import Retriever

FITTED = Calibration(0.8, -1.5, 0.71, 0.9)


def test_probability_is_platts_formula():
    """A sign or a swapped parameter gives probabilities that look right and are not."""
    assert FITTED.probability(3.0) == pytest.approx(1 / (1 + math.exp(-(0.8 * 3.0 - 1.5))), abs=1e-12)
    assert UNCALIBRATED.probability(math.log(3)) == pytest.approx(0.75, abs=1e-12)


@pytest.mark.parametrize(("score", "wanted"), [(-1e4, 0.0), (1e4, 1.0)])
def test_extreme_scores_give_probabilities(score: float, wanted: float):
    """The textbook form of the formula overflows where a score is very low."""
    assert FITTED.probability(score) == wanted


def test_the_ranking_stays():
    """A relevance_score that ties or swaps hits would contradict the order they are shown in."""
    found = [FITTED.probability(score / 10) for score in range(-400, 300)]
    assert all(low < high for low, high in zip(found, found[1:], strict=False))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0, 0.0, None, 0.9), "slope 0.0 .*expected a slope above 0"),
        ((-1.0, 0.0, None, 0.9), "expected a slope above 0"),
        ((math.inf, 0.0, None, 0.9), "finite"),
        ((1.0, math.nan, None, 0.9), "finite"),
        ((1.0, 0.0, 1.5, 0.9), "threshold 1.5, expected a probability"),
        ((1.0, 0.0, math.nan, 0.9), "threshold nan"),
        ((1.0, 0.0, None, 0.0), "precision 0.0, expected a share"),
    ],
)
def test_numbers_that_are_no_calibration_are_refused(values: Any, message: str):
    """A slope below 0 turns the ranking around without a word."""
    with pytest.raises(ValueError, match=message):
        Calibration(*values)


@pytest.mark.parametrize("made", [FITTED, Calibration(1.25, 0.5, None, 0.95)])
def test_a_calibration_is_read_as_it_was_written(made: Calibration, tmp_path: Path):
    """A threshold that is rounded in its file lets through what it was chosen to hold back."""
    write_calibration(tmp_path / "c.json", made)
    assert read_calibration(tmp_path / "c.json") == made
    assert read_calibration(tmp_path / "none.json") is None


def test_what_was_not_fitted_is_not_written(tmp_path: Path):
    """Plain log-odds in a file would pass for a calibration."""
    with pytest.raises(ValueError):
        write_calibration(tmp_path / "c.json", UNCALIBRATED)
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[1]", "has list, expected intercept, precision, slope, threshold"),
        ('{"slope": 1}', "has the keys slope, expected intercept"),
        ('{"slope": true, "intercept": 0, "threshold": null, "precision": 0.9}', "slope True, expected a finite"),
        ('{"slope": "1", "intercept": 0, "threshold": null, "precision": 0.9}', "slope '1', expected a finite"),
        ('{"slope": 1, "intercept": NaN, "threshold": null, "precision": 0.9}', "intercept nan, expected a finite"),
        ('{"slope": 1, "intercept": null, "threshold": null, "precision": 0.9}', "intercept None"),
        ('{"slope": -1, "intercept": 0, "threshold": null, "precision": 0.9}', "above 0.*build the index again"),
    ],
)
def test_a_file_with_something_else_is_refused(text: str, message: str, tmp_path: Path):
    """A broken file would end in a TypeError at the first search, or in senseless probabilities."""
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ArtifactMismatchError, match=message):
        read_calibration(tmp_path / "c.json")


def test_a_folder_carries_calibration_and_card(retriever: Retriever, folder: Path, tmp_path: Path):
    """What is not in the folder is not in the registry, and what the hash leaves out changes unnoticed."""
    plain = Retriever.load(folder)
    assert plain.calibration is None and not (folder / CALIBRATION).exists() and not (folder / "MODEL_CARD.md").exists()
    retriever.calibration = FITTED
    made = retriever.save(tmp_path / "made", {"data": "0" * 64}, {"round": 0}, card="# A card\n")
    loaded = Retriever.load(tmp_path / "made")
    assert loaded.calibration == FITTED and made.hash != plain.manifest.hash
    assert (tmp_path / "made/MODEL_CARD.md").read_bytes() == b"# A card\n"
    again = retriever.save(tmp_path / "again", {"data": "0" * 64}, {"round": 0}, card="# A card\n")
    assert again.hash == made.hash


def test_a_broken_calibration_is_told_with_its_folder(folder: Path):
    """A retriever that ignores its broken calibration answers with other probabilities than it was measured with."""
    (folder / CALIBRATION).write_text('{"slope": 1}')
    write_manifest(folder, "retriever", {}, {})
    with pytest.raises(ArtifactMismatchError, match="calibration.json has the keys slope"):
        Retriever.load(folder)


def test_another_corpus_keeps_the_calibration(retriever: Retriever, toy: Any):
    """Probabilities that vanish with the documents of an evaluation folder."""
    retriever.calibration = FITTED
    assert retriever.reindexed(toy.corpus).calibration == FITTED
