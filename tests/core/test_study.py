"""The study without running it: its files, what is still to do, what the figures say, and the page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from flows._settings import SECTIONS
from rabtriever import params, study_summary
from rabtriever import study as study_module
from rabtriever.artifacts import write_json
from rabtriever.contrastive import BiencoderParams
from rabtriever.distilled_biencoder import DistilledBiencoderParams
from rabtriever.params import ParamsError
from rabtriever.study import Cell, read_study
from rabtriever.study_results import commit_results, estimate, in_order, read_results, to_complete
from tests.closure import ROOT
from tests.toy_study import SYSTEMS, change_study, flat_result, result, save

SHIPPED = sorted(path.stem for path in (ROOT / study_module.FOLDER).glob("*.yaml") if path.stem != "common")
ABLATE = {"sets": ["one"], "seeds": [1]}
SET = {"source": "data/two", "backbone": "small", "seeds": [4], "minutes": 1}
# --- definition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_hold(name: str, monkeypatch: pytest.MonkeyPatch):
    """A setting that a stage refuses would fail its cell after the others have run for hours."""
    study = read_study(name, ROOT)
    own = {"train_biencoder_distilled": DistilledBiencoderParams, "train_late_interaction": BiencoderParams}
    classes = {**SECTIONS, **own}
    every = [Cell(one, spec.seeds[0]) for one, spec in study.sets.items()]
    changed = [Cell(one, study.ablate.seeds[0], ablation) for one in study.ablate.sets for ablation in study.ablations]
    changed += [Cell(name, spec.seeds[0], ablation) for name, spec in study.sets.items() for ablation in spec.ablate]
    found = {str(cell): study.cell_settings(cell) for cell in [*every, *changed]}
    found |= {system: study.cell_settings(every[0], system) for system in study.systems}
    for where, settings in found.items():
        monkeypatch.setattr(params, "read_settings", lambda _, settings=settings: settings)
        for section, cls in classes.items():
            assert isinstance(params.load_params(cls, section, where), cls), where


def test_layers_of_settings(root: Path):
    """The wrong order would run a set with the study's numbers in place of its own."""
    sets = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())["sets"]
    sets["two"]["settings"] = {"distill.steps": 30, "train_biencoder.steps": 77}
    change_study(root, sets=sets)
    study = read_study("toy", root)
    one, two = (study.cell_settings(Cell(name, 2)) for name in ("one", "two"))
    assert (one["distill"]["steps"], two["distill"]["steps"]) == (10, 30)
    assert one["random"]["seed"] == 2 and one["prepare"]["source"] == "data/one"
    assert two["train_late_interaction"]["steps"] == 77, "a section that is like another one follows it"
    assert two["train_late_interaction"]["learning_rate"] == 0.5
    off = study.cell_settings(Cell("one", 1, "off_policy"))["mine"]
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
    """Each would otherwise be met when its cell is reached, hours later."""
    change_study(root, **changes)
    with pytest.raises(ParamsError, match=re.escape(message)):
        read_study("toy", root)


def test_a_system_left_out_of_a_set_is_not_missed_there(root: Path):
    """A table without it must be drawn, and measuring it later must make the cell unfinished."""
    sets = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())["sets"]
    sets["two"]["leave_out"] = ["bm25"]
    change_study(root, sets=sets)
    study = read_study("toy", root)
    assert "bm25" in study.systems_of("one") and "bm25" not in study.systems_of("two")
    assert list(study.conditions(Cell("two", 1))["measured"]) == [name for name in SYSTEMS if name != "bm25"]
    values = {name: [0.5] * 4 for name in study.systems_of("two")}
    finished = {Cell("two", seed): result(study, Cell("two", seed), **values) for seed in (1, 2)}
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    assert set(summary["sets"]["two"]["systems"]) == set(details["sets"]["two"]["systems"]) == set(values)


def test_a_set_may_name_ablations_of_its_own(root: Path):
    """More seeds of the one that matters, or a set for one question, must not take all the others along."""
    sets = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())["sets"]
    sets["one"]["ablate"] = sets["two"]["ablate"] = ["off_policy"]
    change_study(root, sets=sets)
    study = read_study("toy", root)
    assert study.ablations_of("one") == {"no_mse": [1], "off_policy": [1, 2]}
    assert study.ablations_of("two") == {"off_policy": [1, 2]} and study.ablations_of("gone") == {}
    ablations = [cell for cell in study.cells() if cell.ablation]
    assert len(ablations) == len(set(ablations)) == 5
    means = {1: 0.5, 2: 0.7}
    finished = {
        cell: flat_result(study, cell, **dict.fromkeys(["student"] if cell.ablation else SYSTEMS, means[cell.seed]))
        for cell in study.cells()
        if cell.set != "gone"
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
    further = {str(cell) for cell in study.cells() if study.is_further(cell)}
    assert further == {"gone, seed 1", "one, seed 2", "one, seed 1, off_policy"}
    finished = {
        cell: flat_result(study, cell, **dict.fromkeys(["student"] if cell.ablation else SYSTEMS, 0.5))
        for cell in study.cells()
    }
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    assert (details["hours"], details["further_hours"]) == (0.12, 0.05), "minutes of seven cells and of three"
    assert set(summary["sets"]) == {"one", "two", "gone"}, "what was measured is shown"


def test_an_ablation_of_one_system_alone(root: Path):
    """A bi-encoder's settings would train a teacher and a student that nobody asked for."""
    change_study(root, ablate={**ABLATE, "alone": {"biencoder": ["no_mse"]}})
    study = read_study("toy", root)
    measured = {name: study.conditions(Cell("one", 1, name))["measured"] for name in ("no_mse", "off_policy")}
    assert measured == {"no_mse": ["biencoder"], "off_policy": ["student", "teacher"]}
    base = Cell("one", 1)
    finished = {base: result(study, base)}
    assert estimate(study, Cell("one", 1, "no_mse"), finished) == 4, "the training of a bi-encoder"
    own = {"one": {**SET, "seeds": [1], "ablate": ["no_mse"]}}
    change_study(root, sets=own, ablate={**ABLATE, "names": ["off_policy"], "alone": {"biencoder": ["no_mse"]}})
    assert read_study("toy", root).ablate.measured("no_mse") == ["biencoder"], "also one that a set names for itself"


def test_an_ablation_of_a_system_with_settings_of_its_own(root: Path):
    """The ablation would be laid below what it is to change, or cells of before would be unfinished for nothing."""
    systems = {**dict.fromkeys(SYSTEMS, {}), "student_paper": {"distill.mse": 0.5, "distill.steps": 4}}
    change_study(root, systems=systems)
    cell = Cell("one", 1, "no_mse")
    before = read_study("toy", root).conditions(cell)
    change_study(root, ablate={**ABLATE, "alone": {"student_paper": ["no_mse"]}})
    study = read_study("toy", root)
    changed = study.cell_settings(cell, "student_paper")["distill"]
    assert (changed["mse"], changed["steps"]) == (0.0, 4)
    assert study.cell_settings(cell)["distill"]["steps"] == 10
    assert "systems" not in before and study.conditions(cell)["systems"] == {"student_paper": {"distill.steps": 4}}
    change_study(root, ablations={"no_mse": {"distill.steps": "= distill.steps * 2"}, "off_policy": {"mine.depth": 0}})
    assert read_study("toy", root).conditions(cell)["systems"] == {
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
    (root / "profiles/study/more.yaml").write_text(yaml.safe_dump(more))
    study = read_study("more", root)
    assert study.name == "more" and [str(cell) for cell in study.cells()] == ["two, seed 4"]
    settings = study.cell_settings(Cell("two", 4))["distill"]
    assert (settings["steps"], settings["queries"]) == (10, 5)
    assert list(study.systems) == list(SYSTEMS)


def test_an_unknown_study_is_told_the_others(root: Path):
    """Without the names one has to look for the folder."""
    with pytest.raises(FileNotFoundError, match="toy"):
        read_study("tyo", root)


# --- what is to do ----------------------------------------------------------------------------------------------------


def test_first_seeds_come_first_and_ablations_after_their_cell(root: Path):
    """A study that is stopped early should have one seed of everything."""
    study = read_study("toy", root)
    order = [str(cell) for cell, _ in in_order(study, study.cells(), {}) if cell.set in study.present()]
    assert order == [
        "two, seed 1",
        "one, seed 1",
        "one, seed 1, no_mse",
        "one, seed 1, off_policy",
        "two, seed 2",
        "one, seed 2",
    ]
    assert read_results(study)[1][Cell("gone", 1)] == "its data are not there"


def test_estimates_follow_what_was_measured(root: Path):
    """Guesses that stay guesses make the time left a fiction."""
    study = read_study("toy", root)
    base = Cell("one", 1)
    assert estimate(study, base, {}) == 600
    finished = {base: result(study, base, spent=90.0)}
    assert estimate(study, Cell("one", 2), finished) == 90
    assert estimate(study, Cell("one", 1, "no_mse"), finished) == 2  # distillation, no index
    assert estimate(study, Cell("one", 1, "off_policy"), finished) == 5  # mining too
    change_study(root, ablations={"slow": {"train_biencoder.learning_rate": 0.001}})
    assert estimate(read_study("toy", root), Cell("one", 1, "slow"), finished) == 17  # and all but the backbone


def test_a_cell_counts_only_with_the_present_settings(root: Path):
    """Figures of other settings must not be published; those of the same must not be measured again."""
    study = read_study("toy", root)
    base = Cell("one", 1)
    save(study, base, flat_result(study, base, student=0.5))
    assert set(read_results(study)[0]) == {base}

    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("tolerance: 1.0", "tolerance: 2.0"))  # read by no cell
    assert base in read_results(read_study("toy", root))[0]

    change_study(root, settings={"distill.steps": 11})
    finished, missing = read_results(read_study("toy", root))
    assert not finished and "distill.steps: 10 -> 11" in missing[base]
    assert missing[Cell("two", 1)] == "not run yet"


def test_an_ablation_outlives_what_its_teacher_reads(root: Path):
    """A teacher that is to read more documents would cost the student's figures, hours of them."""
    study = read_study("toy", root)
    base, ablation = Cell("one", 1), Cell("one", 1, "no_mse")
    for cell in (base, ablation):
        save(study, cell, flat_result(study, cell, student=0.5, teacher=0.6))
    change_study(root, settings={"distill.steps": 10, "evaluate.teacher_all_up_to": 7})
    finished, missing = read_results(read_study("toy", root))
    assert list(finished) == [ablation] and "teacher_all_up_to: 1000 -> 7" in missing[ablation]
    assert set(finished[ablation].per_query) == set(finished[ablation].info["systems"]) == {"student"}
    assert set(finished[ablation].start) == {"student"} and base in missing

    change_study(root, settings={"distill.steps": 11, "evaluate.teacher_all_up_to": 7})
    assert not read_results(read_study("toy", root))[0]


def test_a_cell_does_not_depend_on_systems_that_it_leaves_out(root: Path):
    """To tune a rival on three sets would make the others, hours of them, unfinished."""
    content = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())
    content["sets"]["two"]["leave_out"] = ["bm25"]
    sections = {"train_bm25": {"of": ["bm25"], "steps": 1}}
    change_study(root, sets=content["sets"], sections=sections)
    cells = [Cell("one", 1), Cell("two", 1), Cell("one", 1, "no_mse")]
    before = [read_study("toy", root).conditions(cell) for cell in cells]
    sections["train_bm25"]["steps"] = 2
    change_study(root, sections=sections)
    after = [read_study("toy", root).conditions(cell) for cell in cells]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]


def test_a_cell_without_dpo_does_not_depend_on_its_settings(root: Path):
    """To tune DPO in a profile would make every cell of that backbone unfinished."""
    sets = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())["sets"]
    sets["two"]["leave_out"] = ["teacher_dpo"]
    change_study(root, sets=sets, systems={**dict.fromkeys(SYSTEMS, {}), "teacher_dpo": {"train_teacher.dpo_steps": 3}})
    cells = [Cell("one", 1), Cell("two", 1), Cell("one", 1, "no_mse")]
    before = [read_study("toy", root).conditions(cell) for cell in cells]
    change_study(root, settings={"distill.steps": 10, "train_teacher.dpo_learning_rate": 0.5})
    after = [read_study("toy", root).conditions(cell) for cell in cells]
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True]
    settings = {"distill.steps": 10, "train_teacher.dpo_steps": 1, "train_teacher.dpo_beta": 0.5}
    change_study(root, settings=settings)
    assert read_study("toy", root).conditions(cells[1])["train_teacher"]["dpo_beta"] == 0.5


def test_cells_of_before_have_the_settings_of_dpo_that_nobody_read(root: Path):
    """They told them in any case, and would all be run again."""
    study = read_study("toy", root)
    cell = Cell("one", 1)
    found = flat_result(study, cell, student=0.5, teacher=0.6)
    found.info["conditions"]["train_teacher"] |= {"dpo_beta": 0.7, "dpo_learning_rate": 0.1}
    save(study, cell, found)
    assert cell in read_results(study)[0] and cell not in read_results(study)[1]


def test_a_cell_that_lacks_a_system_counts_until_it_is_completed(root: Path):
    """A new row would take a whole set off the page, or a cell of other settings would be taken for one to complete."""
    systems = dict.fromkeys([*SYSTEMS, "late_interaction"], {})
    sections = {"train_late_interaction": {"like": "train_biencoder", "of": ["late_interaction"]}}
    sets = yaml.safe_load((root / "profiles/study/toy.yaml").read_text())["sets"]
    less = {**sets, "one": {**sets["one"], "leave_out": ["late_interaction"]}}
    change_study(root, publish=True, systems=systems, sections=sections, sets=less)
    cell = Cell("one", 1)
    study = read_study("toy", root)
    values = dict.fromkeys(SYSTEMS, 0.5)
    commit_results(study, {cell: flat_result(study, cell, **values)}, {})
    change_study(root, sets=sets)
    more = read_study("toy", root)
    finished, missing = read_results(more)
    assert set(finished[cell].per_query) == set(SYSTEMS) and missing[cell] == "was run without late_interaction"
    summary, _ = study_summary.summarise(more, finished, missing, "make study")
    assert list(summary["sets"]["one"]["systems"]) == list(SYSTEMS)
    assert to_complete(more, cell).per_query == finished[cell].per_query
    assert to_complete(study, cell) is None, "it lacks nothing"
    assert estimate(more, cell, finished) == 14, "the warm-up and a training like a bi-encoder's"

    completed = flat_result(more, cell, **values, late_interaction=0.4)
    completed.info["added"] = {"late_interaction": "abacus"}
    save(more, cell, completed)
    assert cell not in read_results(more)[1] and cell in read_results(more, committed=False)[1]

    save(study, cell, flat_result(study, cell, **values))
    assert to_complete(more, cell) is None, "what was run here goes on from there"
    assert cell in read_results(more, committed=False)[1], "an ablation of the system would start from nothing"
    (more.folder / cell.folder / study_module.RESULT).unlink()
    change_study(root, settings={"distill.steps": 11})
    other = read_study("toy", root)
    assert to_complete(other, cell) is None and not read_results(other)[0]
    assert "distill.steps: 10 -> 11" in read_results(other)[1][cell]


def test_a_system_with_other_settings_of_its_own_is_measured_again_alone(root: Path):
    """To choose a setting for one row would take a whole set off the page, or show the row as it was before."""
    systems = {**dict.fromkeys(SYSTEMS, {}), "student_paper": {"predictor.products": 0}}
    change_study(root, publish=True, systems=systems)
    cell = Cell("one", 1)
    study = read_study("toy", root)
    commit_results(study, {cell: flat_result(study, cell, **dict.fromkeys(systems, 0.5))}, {})
    systems["student_paper"] = {"predictor.products": 0, "predictor.hidden": 7}
    change_study(root, systems=systems)
    changed = read_study("toy", root)
    finished, missing = read_results(changed)
    assert missing[cell] == "was run with other settings of student_paper"
    assert set(finished[cell].per_query) == set(finished[cell].info["systems"]) == set(SYSTEMS)
    assert to_complete(changed, cell) == finished[cell]
    assert estimate(changed, cell, finished) == 28, "all that leads to a student"
    change_study(root, systems={**systems, "late_interaction": {}})
    both = read_results(read_study("toy", root))[1][cell]
    assert both == "was run without late_interaction; was run with other settings of student_paper"
    change_study(root, systems=systems, settings={"distill.steps": 11})
    assert not read_results(read_study("toy", root))[0], "the others have changed too"
    change_study(root, systems={name: {"predictor.hidden": 7} for name in systems}, settings={"distill.steps": 10})
    nothing = read_study("toy", root)
    assert not read_results(nothing)[0] and to_complete(nothing, cell) is None, "nothing would be left"


def test_committed_cells_count_as_those_run_here(root: Path):
    """A fresh clone would measure again for hours what its repository has; and without the data it would lose it."""
    change_study(root, publish=True)
    study = read_study("toy", root)
    cells = [Cell("one", 1), Cell("one", 1, "no_mse"), Cell("gone", 1)]
    finished = {cell: result(study, cell, student=[0.1, 0.25, 1 / 3, 1.0]) for cell in cells}
    commit_results(study, finished, {})
    assert read_results(study)[0] == finished
    assert not read_results(study, committed=False)[0]
    here = flat_result(study, cells[0], student=0.5)
    save(study, cells[0], here)
    found, _ = read_results(study)
    assert found[cells[0]] == here, "what was run here goes before what others have committed"
    assert found[cells[1]] == finished[cells[1]], "it has the figures that it started from with it"
    save(study, cells[1], finished[cells[1]])
    (study.folder / cells[1].folder / study_module.START).unlink()
    change_study(root, publish=False)
    found, missing = read_results(read_study("toy", root))
    assert set(found) == {cells[0]}, "only published studies are committed"
    assert missing[cells[1]] == "not run yet", "an earlier version's ablation has nothing to be compared with"


def test_a_failure_is_told(root: Path):
    """A cell that is missing without a reason cannot be put right."""
    study = read_study("toy", root)
    write_json(study.folder / "one-1" / study_module.FAILURE, {"message": "loss is nan"})
    assert read_results(study)[1][Cell("one", 1)] == "failed: loss is nan"
