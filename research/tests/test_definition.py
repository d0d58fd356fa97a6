"""The study's definition: its files, its trials, and what each is run with."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from rabtriever.core import settings
from rabtriever.core.settings import ParamsError
from rabtriever.ops.sections import SECTIONS
from rabtriever.training.contrastive import BiencoderParams
from rabtriever.training.distilled_biencoder import DistilledBiencoderParams
from research import definition as study_module
from research import summary as study_summary
from research.definition import Trial, read_study
from research.finished import estimate
from research.tests.toy_study import SYSTEMS, change_study, flat_result, result
from tests.closure import ROOT

SHIPPED = sorted(path.stem for path in (ROOT / study_module.FOLDER).glob("*.yaml") if path.stem != "common")
ABLATE = {"sets": ["one"], "seeds": [1]}
SET = {"source": "data/two", "backbone": "small", "seeds": [4], "minutes": 1}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_hold(name: str, monkeypatch: pytest.MonkeyPatch):
    """A setting that a stage refuses would fail its trial after the others have run for hours."""
    study = read_study(name, ROOT)
    own = {"train_biencoder_distilled": DistilledBiencoderParams, "train_late_interaction": BiencoderParams}
    classes = {**SECTIONS, **own}
    every = [Trial(one, spec.seeds[0]) for one, spec in study.sets.items()]
    changed = [Trial(one, study.ablate.seeds[0], ablation) for one in study.ablate.sets for ablation in study.ablations]
    changed += [Trial(name, spec.seeds[0], ablation) for name, spec in study.sets.items() for ablation in spec.ablate]
    found = {str(trial): study.trial_settings(trial) for trial in [*every, *changed]}
    found |= {system: study.trial_settings(every[0], system) for system in study.systems}
    for where, values in found.items():
        monkeypatch.setattr(settings, "read_settings", lambda _, values=values: values)
        for section, cls in classes.items():
            assert isinstance(settings.load_params(cls, section, where), cls), where


def test_layers_of_settings(root: Path):
    """The wrong order would run a set with the study's numbers in place of its own."""
    sets = yaml.safe_load((root / "research/studies/toy.yaml").read_text())["sets"]
    sets["two"]["settings"] = {"distill.steps": 30, "train_biencoder.steps": 77}
    change_study(root, sets=sets)
    study = read_study("toy", root)
    one, two = (study.trial_settings(Trial(name, 2)) for name in ("one", "two"))
    assert (one["distill"]["steps"], two["distill"]["steps"]) == (10, 30)
    assert one["random"]["seed"] == 2 and one["prepare"]["source"] == "data/one"
    assert two["train_late_interaction"]["steps"] == 77, "a section that is like another one follows it"
    assert two["train_late_interaction"]["learning_rate"] == 0.5
    off = study.trial_settings(Trial("one", 1, "off_policy"))["mine"]
    assert off["depth"] == 0 and off["random"] == one["mine"]["depth"] + one["mine"]["random"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sets": {"one": {"source": "x", "backbone": "big", "seeds": [1], "minutes": 1}}}, "expected one of small"),
        ({"sets": {"one": {"source": "x", "seeds": [1]}}}, "backbone, minutes, seeds, source"),
        ({"sets": {"one": {**SET, "leave_out": ["rerank"]}}}, "leave_out names 'rerank'"),
        ({"settings": {"distil.steps": 1}}, "did you mean 'distill.steps'"),
        ({"ablate": {"sets": ["one"], "seeds": [9]}}, "names 9"),
        ({"ablate": {**ABLATE, "names": ["no_mes"]}}, "names 'no_mes'"),
        ({"sets": {"one": {**SET, "seeds": [1], "ablate": ["no_mes"]}}}, "sets.one.ablate names 'no_mes'"),
        ({"ablate": None, "sets": {"one": {**SET, "ablate": ["no_mse"]}}}, "sets.one.ablate, but no ablate"),
        ({"ablate": {**ABLATE, "alone": {"rerank": ["no_mse"]}}}, "ablate.alone names 'rerank'"),
        ({"ablate": {**ABLATE, "alone": {"student": ["no_mes"]}}}, "ablate.alone.student names 'no_mes'"),
        ({"sections": {"train_rerank": {"of": ["rerank"], "steps": 1}}}, "sections.train_rerank.of names 'rerank'"),
        ({"further": {"sets": ["three"]}}, "further names 'three'"),
        ({"further": {"seeds": {"one": [9]}}}, "further.seeds.one names 9"),
        ({"further": {"ablations": {"two": ["no_mse"]}}}, "further.ablations.two names 'no_mse'"),
        ({"ablations": {"no_mse": {"distill.mes": 0}}}, "did you mean 'distill.mse'"),
        ({"systems": {"student_paper": {"predictor.product": 0}}}, "did you mean 'predictor.products'"),
        ({"split": "train"}, "expected test or dev"),
        ({"sets": {"one": {**SET, "seeds": []}}}, "sets.one.seeds is [], expected one or more"),
        ({"sets": {"one": {**SET, "seeds": [4, 4]}}}, "sets.one.seeds is [4, 4], expected one or more, all different"),
        ({"sets": {"one": {**SET, "seeds": 7}}}, "sets.one.seeds is 7, expected a list"),
        ({"sets": {"one": {**SET, "leave_out": None}}}, "sets.one.leave_out is None, expected a list"),
        ({"sets": {"one": {**SET, "documents": "many"}}}, "sets.one.documents is 'many', expected an integer"),
        ({"sets": {"one": {**SET, "settings": 3}}}, "sets.one.settings is 3, expected names"),
        ({"sets": [1]}, "sets is [1], expected names"),
        ({"ablations": {"no_mse": None}}, "ablations.no_mse is None, expected the settings"),
        ({"further": {"seeds": {"one": 9}}}, "further.seeds.one is 9, expected a list"),
        ({"workers": 0}, "workers is 0, expected a whole number of at least 1"),
        ({"workers": True}, "workers is True, expected a whole number"),
        ({"sections": {"mine": {"depth": 1}}}, "in params.yaml too"),
        ({"setings": {}}, "unknown keys setings"),
    ],
)
def test_faults_of_a_study_are_found_at_its_start(root: Path, changes: dict, message: str):
    """Each would otherwise be met when its trial is reached, hours later."""
    change_study(root, **changes)
    with pytest.raises(ParamsError, match=re.escape(message)):
        read_study("toy", root)


def test_a_system_left_out_of_a_set_is_not_missed_there(root: Path):
    """A table without it must be drawn, and measuring it later must make the trial unfinished."""
    sets = yaml.safe_load((root / "research/studies/toy.yaml").read_text())["sets"]
    sets["two"]["leave_out"] = ["bm25"]
    change_study(root, sets=sets)
    study = read_study("toy", root)
    assert "bm25" in study.systems_of("one") and "bm25" not in study.systems_of("two")
    assert list(study.conditions(Trial("two", 1))["measured"]) == [name for name in SYSTEMS if name != "bm25"]
    values = {name: [0.5] * 4 for name in study.systems_of("two")}
    finished = {Trial("two", seed): result(study, Trial("two", seed), **values) for seed in (1, 2)}
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    assert set(summary["sets"]["two"]["systems"]) == set(details["sets"]["two"]["systems"]) == set(values)


def test_a_set_may_name_ablations_of_its_own(root: Path):
    """More seeds of the one that matters, or a set for one question, must not take all the others along."""
    sets = yaml.safe_load((root / "research/studies/toy.yaml").read_text())["sets"]
    sets["one"]["ablate"] = sets["two"]["ablate"] = ["off_policy"]
    change_study(root, sets=sets)
    study = read_study("toy", root)
    assert study.ablations_of("one") == {"no_mse": [1], "off_policy": [1, 2]}
    assert study.ablations_of("two") == {"off_policy": [1, 2]} and study.ablations_of("gone") == {}
    ablations = [trial for trial in study.trials() if trial.ablation]
    assert len(ablations) == len(set(ablations)) == 5
    means = {1: 0.5, 2: 0.7}
    finished = {
        trial: flat_result(study, trial, **dict.fromkeys(["student"] if trial.ablation else SYSTEMS, means[trial.seed]))
        for trial in study.trials()
        if trial.set != "gone"
    }
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    seeds = {name: {one: row["seeds"] for one, row in rows.items()} for name, rows in details["ablations"].items()}
    assert seeds == {
        "one": {"default": [1], "no_mse": [1], "off_policy": [1, 2]},
        "two": {"default": [1, 2], "off_policy": [1, 2]},
    }
    assert summary["ablations"]["one"]["off_policy"]["nDCG@10"] == 60.0
    assert details["on_policy_together"]["default"]["queries"] == 8, "four of each set"
    assert {name: row["default"]["seeds"] for name, row in details["on_policy"].items()} == {
        "one": [1, 2],
        "two": [1, 2],
    }


def test_what_a_study_leaves_to_those_who_ask(root: Path):
    """Four hours would be eight again, or the page would say that the eight are what the plain command takes."""
    plan = {"sets": ["gone"], "seeds": {"one": [2]}, "ablations": {"one": ["off_policy"]}}
    change_study(root, further=plan, workers=2)
    study = read_study("toy", root)
    further = {str(trial) for trial in study.trials() if study.is_further(trial)}
    assert further == {"gone, seed 1", "one, seed 2", "one, seed 1, off_policy"}
    finished = {
        trial: flat_result(study, trial, **dict.fromkeys(["student"] if trial.ablation else SYSTEMS, 0.5))
        for trial in study.trials()
    }
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    assert (details["hours"], details["further_hours"]) == (0.12, 0.05), "minutes of seven trials and of three"
    assert set(summary["sets"]) == {"one", "two", "gone"}, "what was measured is shown"


def test_an_ablation_of_one_system_alone(root: Path):
    """A bi-encoder's settings would train a teacher and a student that nobody asked for."""
    change_study(root, ablate={**ABLATE, "alone": {"biencoder": ["no_mse"]}})
    study = read_study("toy", root)
    measured = {name: study.conditions(Trial("one", 1, name))["measured"] for name in ("no_mse", "off_policy")}
    assert measured == {"no_mse": ["biencoder"], "off_policy": ["student", "teacher"]}
    base = Trial("one", 1)
    finished = {base: result(study, base)}
    assert estimate(study, Trial("one", 1, "no_mse"), finished) == 4, "the training of a bi-encoder"
    own = {"one": {**SET, "seeds": [1], "ablate": ["no_mse"]}}
    change_study(root, sets=own, ablate={**ABLATE, "names": ["off_policy"], "alone": {"biencoder": ["no_mse"]}})
    assert read_study("toy", root).ablate.measured("no_mse") == ["biencoder"], "also one that a set names for itself"


def test_an_ablation_of_a_system_with_settings_of_its_own(root: Path):
    """The ablation would be laid below what it is to change, or trials of before would be unfinished for nothing."""
    systems = {**dict.fromkeys(SYSTEMS, {}), "student_paper": {"distill.mse": 0.5, "distill.steps": 4}}
    change_study(root, systems=systems)
    trial = Trial("one", 1, "no_mse")
    before = read_study("toy", root).conditions(trial)
    change_study(root, ablate={**ABLATE, "alone": {"student_paper": ["no_mse"]}})
    study = read_study("toy", root)
    changed = study.trial_settings(trial, "student_paper")["distill"]
    assert (changed["mse"], changed["steps"]) == (0.0, 4)
    assert study.trial_settings(trial)["distill"]["steps"] == 10
    assert "systems" not in before and study.conditions(trial)["systems"] == {"student_paper": {"distill.steps": 4}}
    change_study(root, ablations={"no_mse": {"distill.steps": "= distill.steps * 2"}, "off_policy": {"mine.depth": 0}})
    assert read_study("toy", root).conditions(trial)["systems"] == {
        "student_paper": {"distill.steps": 8, "distill.mse": 0.5}
    }, "an ablation of what the system sets must not look like another one"


def test_trained_systems_have_as_many_alternatives():
    """A system tuned more than another would be ahead for that."""
    study = read_study("tune", ROOT)
    trained = {"biencoder", "biencoder_distilled", "late_interaction", "student_paper", "student", "teacher",
               "teacher_dpo"}  # fmt: skip
    for name in ("alfred", "argkp", "ecare-minilm"):
        found = Counter(system for one in study.ablations_of(name) for system in study.ablate.measured(one))
        assert found == dict.fromkeys(trained & set(study.systems_of(name)), 4), name


def test_an_included_study_is_the_base(root: Path):
    """A study that takes another's settings must not run the other's sets as well."""
    more = {"include": "toy.yaml", "settings": {"distill.queries": 5}, "sets": {"two": SET}, "ablate": None}
    (root / "research/studies/more.yaml").write_text(yaml.safe_dump(more))
    study = read_study("more", root)
    assert study.name == "more" and [str(trial) for trial in study.trials()] == ["two, seed 4"]
    settings = study.trial_settings(Trial("two", 4))["distill"]
    assert (settings["steps"], settings["queries"]) == (10, 5)
    assert list(study.systems) == list(SYSTEMS)


def test_an_unknown_study_is_told_the_others(root: Path):
    """Without the names one has to look for the folder."""
    with pytest.raises(FileNotFoundError, match="toy"):
        read_study("tyo", root)
