"""A study file: what it sets, in which order, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from rabtriever.core.settings import ParamsError
from research.definition import Study, Trial, overlaid, read_study
from research.tests.conftest import TOY
from research.trial import check_systems

LLM_SYSTEMS = [
    "bm25",
    "biencoder",
    "biencoder_distilled",
    "biencoder_rerank",
    "student_paper",
    "student",
    "teacher",
]


def test_a_trial_has_the_settings_of_all_layers(study: Study):
    """A set measured with another profile, seed or number of steps than its file says."""
    one, two = study.trial_settings(Trial("one", 8)), study.trial_settings(Trial("two", 9))
    assert (one["random"]["seed"], one["distill"]["steps"], one["backbone"]["source"]) == (8, 3, "")
    assert (two["distill"]["steps"], two["backbone"]["pooling"]) == (4, "mean")
    assert two["prepare"]["source"] == "data/two"


def test_every_set_comes_before_a_second_seed(study: Study):
    """A study that is stopped early has every seed of something, and nothing of the rest."""
    assert list(map(str, study.trials())) == ["one-7", "two-9", "one-8"]


def test_the_conditions_name_limits_and_systems(study: Study):
    """A trial of other data or without a system would count as finished."""
    found = study.conditions(Trial("one", 7))
    assert found["limits"] == {"documents": 5, "train_queries": 0, "test_queries": 0}
    assert found["systems"] == {"bm25": {}, "student": {}, "wide": {"predictor.hidden": 64}}


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("sets", "one", "sources"), "x", "sources"),
        (("sets", "one", "seeds"), ["seven"], "sets.one.seeds.0"),
        (("other",), 1, "other"),
        (("settings", "distill.step"), 1, "did you mean 'distill.steps'"),
        (("sets", "one", "settings"), {"mine.dept": 1}, "sets.one.settings: params.yaml has no key 'mine.dept'"),
        (("sets", "one", "profile"), "smal", "did you mean 'small'"),
    ],
)
def test_a_wrong_file_is_told_at_once(root: Path, where: tuple[str, ...], value: object, message: str):
    """A misspelt key changes nothing, and hours later the figures are those of the default."""
    content = yaml.safe_load(yaml.safe_dump(TOY))
    part = content
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    (root / "research/studies/toy.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises((ParamsError, FileNotFoundError), match=re.escape(message)):
        read_study("toy", root)


def test_an_unknown_study_names_those_there_are(root: Path):
    """A mistyped name ends in a traceback."""
    with pytest.raises(FileNotFoundError, match="llm, small, tiny, toy"):
        read_study("smal", root)


def test_an_override_leaves_the_settings_it_starts_from():
    """A variant would change the trial that it is compared with."""
    settings = {"mine": {"depth": 12}, "random": {"seed": 1}}
    assert overlaid(settings, {"mine.depth": 0}, "here") == {"mine": {"depth": 0}, "random": {"seed": 1}}
    assert settings["mine"]["depth"] == 12


@pytest.mark.parametrize("name", ["tiny", "small", "llm"])
def test_the_shipped_studies_can_be_run(root: Path, name: str):
    """A study names a system or a setting that is gone, and nobody sees it before its hours are spent."""
    if not (root / "profiles/smollm2.yaml").is_file():
        (root / "profiles/smollm2.yaml").write_text("mine:\n  queries: 300\n")
    found = read_study(name, root)
    check_systems(found)
    if name == "llm":
        assert list(found.systems) == LLM_SYSTEMS
        assert list(found.sets) == ["ecare", "metatool", "tldr", "apibench", "saycan", "household"]
        assert sorted(len(spec.seeds) for spec in found.sets.values()) == [1, 1, 1, 1, 3, 3]
        limits = {(spec.documents, spec.train_queries, spec.test_queries) for spec in found.sets.values()}
        assert limits == {(1500, 1000, 300)}
    paper = found.systems["student_paper"]
    hidden = found.trial_settings(found.trials()[0])["predictor"]["hidden"]
    assert paper == {"predictor.products": 0, "predictor.hidden": 2 * hidden}
