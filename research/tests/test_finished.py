"""What of a study counts as finished, what is to do, and in which order."""

from __future__ import annotations

from pathlib import Path

import yaml

from rabtriever.core.artifacts import write_json
from research import definition as study_module
from research import summary as study_summary
from research.definition import Trial, read_study
from research.finished import commit_results, estimate, in_order, read_results, to_complete
from research.tests.toy_study import SYSTEMS, change_study, flat_result, result, save


def test_first_seeds_come_first_and_ablations_after_their_trial(root: Path):
    """A study that is stopped early should have one seed of everything."""
    study = read_study("toy", root)
    order = [str(trial) for trial, _ in in_order(study, study.trials(), {}) if trial.set in study.present()]
    assert order == [
        "two, seed 1",
        "one, seed 1",
        "one, seed 1, no_mse",
        "one, seed 1, off_policy",
        "two, seed 2",
        "one, seed 2",
    ]
    assert read_results(study)[1][Trial("gone", 1)] == "its data are not there"


def test_estimates_follow_what_was_measured(root: Path):
    """Guesses that stay guesses make the time left a fiction."""
    study = read_study("toy", root)
    base = Trial("one", 1)
    assert estimate(study, base, {}) == 600
    finished = {base: result(study, base, spent=90.0)}
    assert estimate(study, Trial("one", 2), finished) == 90
    assert estimate(study, Trial("one", 1, "no_mse"), finished) == 2  # distillation, no index
    assert estimate(study, Trial("one", 1, "off_policy"), finished) == 5  # mining too
    change_study(root, ablations={"slow": {"train_biencoder.learning_rate": 0.001}})
    assert estimate(read_study("toy", root), Trial("one", 1, "slow"), finished) == 17  # and all but the backbone


def test_a_trial_counts_only_with_the_present_settings(root: Path):
    """Figures of other settings must not be published; those of the same must not be measured again."""
    study = read_study("toy", root)
    base = Trial("one", 1)
    save(study, base, flat_result(study, base, student=0.5))
    assert set(read_results(study)[0]) == {base}

    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("tolerance: 1.0", "tolerance: 2.0"))  # read by no trial
    assert base in read_results(read_study("toy", root))[0]

    change_study(root, settings={"distill.steps": 11})
    finished, missing = read_results(read_study("toy", root))
    assert not finished and "distill.steps: 10 -> 11" in missing[base]
    assert missing[Trial("two", 1)] == "not run yet"


def test_an_ablation_outlives_what_its_teacher_reads(root: Path):
    """A teacher that is to read more documents would cost the student's figures, hours of them."""
    study = read_study("toy", root)
    base, ablation = Trial("one", 1), Trial("one", 1, "no_mse")
    for trial in (base, ablation):
        save(study, trial, flat_result(study, trial, student=0.5, teacher=0.6))
    change_study(root, settings={"distill.steps": 10, "evaluate.teacher_all_up_to": 7})
    finished, missing = read_results(read_study("toy", root))
    assert list(finished) == [ablation] and "teacher_all_up_to: 1000 -> 7" in missing[ablation]
    assert set(finished[ablation].per_query) == set(finished[ablation].info["systems"]) == {"student"}
    assert set(finished[ablation].start) == {"student"} and base in missing

    change_study(root, settings={"distill.steps": 11, "evaluate.teacher_all_up_to": 7})
    assert not read_results(read_study("toy", root))[0]


def test_a_trial_does_not_depend_on_systems_that_it_leaves_out(root: Path):
    """To tune a rival on three sets would make the others, hours of them, unfinished."""
    content = yaml.safe_load((root / "research/studies/toy.yaml").read_text())
    content["sets"]["two"]["leave_out"] = ["bm25"]
    sections = {"train_bm25": {"of": ["bm25"], "steps": 1}}
    change_study(root, sets=content["sets"], sections=sections)
    trials = [Trial("one", 1), Trial("two", 1), Trial("one", 1, "no_mse")]
    before = [read_study("toy", root).conditions(trial) for trial in trials]
    sections["train_bm25"]["steps"] = 2
    change_study(root, sections=sections)
    after = [read_study("toy", root).conditions(trial) for trial in trials]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]


def test_a_trial_without_dpo_does_not_depend_on_its_settings(root: Path):
    """To tune DPO in a profile would make every trial of that backbone unfinished."""
    sets = yaml.safe_load((root / "research/studies/toy.yaml").read_text())["sets"]
    sets["two"]["leave_out"] = ["teacher_dpo"]
    change_study(root, sets=sets, systems={**dict.fromkeys(SYSTEMS, {}), "teacher_dpo": {"train_teacher.dpo_steps": 3}})
    trials = [Trial("one", 1), Trial("two", 1), Trial("one", 1, "no_mse")]
    before = [read_study("toy", root).conditions(trial) for trial in trials]
    change_study(root, settings={"distill.steps": 10, "train_teacher.dpo_learning_rate": 0.5})
    after = [read_study("toy", root).conditions(trial) for trial in trials]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]
    settings = {"distill.steps": 10, "train_teacher.dpo_steps": 1, "train_teacher.dpo_beta": 0.5}
    change_study(root, settings=settings)
    assert read_study("toy", root).conditions(trials[1])["train_teacher"]["dpo_beta"] == 0.5


def test_trials_of_before_have_the_settings_of_dpo_that_nobody_read(root: Path):
    """They told them in any case, and would all be run again."""
    study = read_study("toy", root)
    trial = Trial("one", 1)
    found = flat_result(study, trial, student=0.5, teacher=0.6)
    found.info["conditions"]["train_teacher"] |= {"dpo_beta": 0.7, "dpo_learning_rate": 0.1}
    save(study, trial, found)
    assert trial in read_results(study)[0] and trial not in read_results(study)[1]


def test_a_trial_that_lacks_a_system_counts_until_it_is_completed(root: Path):
    """A new row would take a whole set off the page, or a trial of other settings would pass for one to complete."""
    systems = dict.fromkeys([*SYSTEMS, "late_interaction"], {})
    sections = {"train_late_interaction": {"like": "train_biencoder", "of": ["late_interaction"]}}
    sets = yaml.safe_load((root / "research/studies/toy.yaml").read_text())["sets"]
    less = {**sets, "one": {**sets["one"], "leave_out": ["late_interaction"]}}
    change_study(root, publish=True, systems=systems, sections=sections, sets=less)
    trial = Trial("one", 1)
    study = read_study("toy", root)
    values = dict.fromkeys(SYSTEMS, 0.5)
    commit_results(study, {trial: flat_result(study, trial, **values)}, {})
    change_study(root, sets=sets)
    more = read_study("toy", root)
    finished, missing = read_results(more)
    assert set(finished[trial].per_query) == set(SYSTEMS) and missing[trial] == "was run without late_interaction"
    summary, _ = study_summary.summarise(more, finished, missing, "make study")
    assert list(summary["sets"]["one"]["systems"]) == list(SYSTEMS)
    assert to_complete(more, trial).per_query == finished[trial].per_query
    assert to_complete(study, trial) is None, "it lacks nothing"
    assert estimate(more, trial, finished) == 14, "the warm-up and a training like a bi-encoder's"

    completed = flat_result(more, trial, **values, late_interaction=0.4)
    completed.info["added"] = {"late_interaction": "abacus"}
    save(more, trial, completed)
    assert trial not in read_results(more)[1] and trial in read_results(more, committed=False)[1]

    save(study, trial, flat_result(study, trial, **values))
    assert to_complete(more, trial) is None, "what was run here goes on from there"
    assert trial in read_results(more, committed=False)[1], "an ablation of the system would start from nothing"
    (more.folder / trial.folder / study_module.RESULT).unlink()
    change_study(root, settings={"distill.steps": 11})
    other = read_study("toy", root)
    assert to_complete(other, trial) is None and not read_results(other)[0]
    assert "distill.steps: 10 -> 11" in read_results(other)[1][trial]


def test_a_system_with_other_settings_of_its_own_is_measured_again_alone(root: Path):
    """To choose a setting for one row would take a whole set off the page, or show the row as it was before."""
    systems = {**dict.fromkeys(SYSTEMS, {}), "student_paper": {"predictor.products": 0}}
    change_study(root, publish=True, systems=systems)
    trial = Trial("one", 1)
    study = read_study("toy", root)
    commit_results(study, {trial: flat_result(study, trial, **dict.fromkeys(systems, 0.5))}, {})
    systems["student_paper"] = {"predictor.products": 0, "predictor.hidden": 7}
    change_study(root, systems=systems)
    changed = read_study("toy", root)
    finished, missing = read_results(changed)
    assert missing[trial] == "was run with other settings of student_paper"
    assert set(finished[trial].per_query) == set(finished[trial].info["systems"]) == set(SYSTEMS)
    assert to_complete(changed, trial) == finished[trial]
    assert estimate(changed, trial, finished) == 28, "all that leads to a student"
    change_study(root, systems={**systems, "late_interaction": {}})
    both = read_results(read_study("toy", root))[1][trial]
    assert both == "was run without late_interaction; was run with other settings of student_paper"
    change_study(root, systems=systems, settings={"distill.steps": 11})
    assert not read_results(read_study("toy", root))[0], "the others have changed too"
    change_study(root, systems={name: {"predictor.hidden": 7} for name in systems}, settings={"distill.steps": 10})
    nothing = read_study("toy", root)
    assert not read_results(nothing)[0] and to_complete(nothing, trial) is None, "nothing would be left"


def test_committed_trials_count_as_those_run_here(root: Path):
    """A fresh clone would measure again for hours what its repository has; and without the data it would lose it."""
    change_study(root, publish=True)
    study = read_study("toy", root)
    trials = [Trial("one", 1), Trial("one", 1, "no_mse"), Trial("gone", 1)]
    finished = {trial: result(study, trial, student=[0.1, 0.25, 1 / 3, 1.0]) for trial in trials}
    commit_results(study, finished, {})
    assert read_results(study)[0] == finished
    assert not read_results(study, committed=False)[0]
    here = flat_result(study, trials[0], student=0.5)
    save(study, trials[0], here)
    found, _ = read_results(study)
    assert found[trials[0]] == here, "what was run here goes before what others have committed"
    assert found[trials[1]] == finished[trials[1]], "it has the figures that it started from with it"
    save(study, trials[1], finished[trials[1]])
    (study.folder / trials[1].folder / study_module.START).unlink()
    change_study(root, publish=False)
    found, missing = read_results(read_study("toy", root))
    assert set(found) == {trials[0]}, "only published studies are committed"
    assert missing[trials[1]] == "not run yet", "an earlier version's ablation has nothing to be compared with"


def test_a_failure_is_told(root: Path):
    """A trial that is missing without a reason cannot be put right."""
    study = read_study("toy", root)
    write_json(study.folder / "one-1" / study_module.FAILURE, {"message": "loss is nan"})
    assert read_results(study)[1][Trial("one", 1)] == "failed: loss is nan"
