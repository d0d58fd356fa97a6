"""The study without running it: its files, what is still to do, what the figures say, and the page."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rabtriever import params, study_summary
from rabtriever import study as study_module
from rabtriever.artifacts import ArtifactMismatchError, write_json
from rabtriever.contrastive import BiencoderParams
from rabtriever.distilled_biencoder import DistilledBiencoderParams
from rabtriever.metrics import METRICS
from rabtriever.overlay import overlaid
from rabtriever.params import ParamsError
from rabtriever.study import Cell, Study, read_study
from rabtriever.study_results import CellResult, commit_results, estimate, figures_hash, in_order, read_results
from tests.closure import ROOT

SHIPPED = sorted(path.stem for path in (ROOT / study_module.FOLDER).glob("*.yaml") if path.stem != "common")
SET = {"source": "data/two", "backbone": "small", "seeds": [4], "minutes": 1}
SYSTEMS = ("bm25", "biencoder", "biencoder_distilled", "student", "teacher")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two data folders and a small study `toy`."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "profiles/study").mkdir(parents=True)
    shutil.copy(ROOT / "profiles/small.yaml", tmp_path / "profiles")
    for name in ("one", "two"):
        (tmp_path / "data" / name).mkdir(parents=True)
    content = {
        "settings": {"distill.steps": 10},
        "backbones": {"small": {"profile": "small"}},
        "systems": {name: {} for name in SYSTEMS},
        "sections": {"train_late_interaction": {"like": "train_biencoder", "learning_rate": 0.5}},
        "sets": {
            "one": {"source": "data/one", "backbone": "small", "seeds": [1, 2], "minutes": 10},
            "two": {"source": "data/two", "backbone": "small", "seeds": [1, 2], "minutes": 2},
            "gone": {"source": "data/gone", "backbone": "small", "seeds": [1], "minutes": 1},
        },
        "ablations": {
            "no_mse": {"distill.mse": 0.0},
            "off_policy": {"mine.depth": 0, "mine.random": "= mine.depth + mine.random"},
        },
        "ablate": {"sets": ["one"], "seeds": [1]},
    }
    write_study(tmp_path, content)
    return tmp_path


def write_study(root: Path, content: dict[str, Any]) -> None:
    (root / "profiles/study/toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def change_study(root: Path, **changes: Any) -> None:
    path = root / "profiles/study/toy.yaml"
    write_study(root, {**yaml.safe_load(path.read_text()), **changes})


def result(study: Study, cell: Cell, spent: float = 60.0, data: str = "d", **ndcg: list[float]) -> CellResult:
    """A finished cell: nDCG@10 from 0 to 1 per query by system."""
    per_query = {name: {f"q{place}": value for place, value in enumerate(values)} for name, values in ndcg.items()}
    rows = {
        name: {
            **dict.fromkeys(METRICS, round(100 * sum(values) / len(values), 2)),
            "ms_per_query": 1.0,
            "bytes_per_document": 8.0,
        }
        for name, values in ndcg.items()
    }
    info: dict[str, Any] = {
        "set": cell.set,
        "seed": cell.seed,
        "ablation": cell.ablation,
        "systems": rows,
        "num_queries": 4,
        "num_documents": 30,
        "train_queries": 100,
        "data_hash": data,
        "teacher_calls": 50,
        "seconds": {
            "backbone": 10.0,
            "train_biencoder": 4.0,
            "train_teacher": 8.0,
            "mine-0": 3.0,
            "distill-0": 2.0,
            "build_index": 1.0,
        },
        "seconds_to_student": 24.0,
        "spent": spent,
        "teacher_scope": "all documents",
        "device": "abacus",
        "conditions": study.conditions(cell),
    }
    if cell.ablation:
        info["base"] = figures_hash(per_query, per_query)  # as if the base cell had the same figures
    return CellResult(info, per_query)


def flat_result(study: Study, cell: Cell, **means: float) -> CellResult:
    return result(study, cell, **{name: [mean] * 4 for name, mean in means.items()})


def save(study: Study, cell: Cell, one: CellResult) -> None:
    write_json(study.folder / cell.folder / study_module.RESULT, one.info)
    write_json(study.folder / cell.folder / study_module.PER_QUERY, one.per_query)


# --- definition -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_hold(name: str, monkeypatch: pytest.MonkeyPatch):
    """A setting that a stage refuses would fail its cell after the others have run for hours."""
    study = read_study(name, ROOT)
    classes = {"train_biencoder_distilled": DistilledBiencoderParams, "train_late_interaction": BiencoderParams}
    for path in (ROOT / "flows").glob("[a-z]*.py"):
        for cls, section in re.findall(r'load_params\((\w+), "(\w+)"', path.read_text()):
            classes[section] = getattr(importlib.import_module(f"flows.{path.stem}"), cls)
    every = [Cell(one, spec.seeds[0]) for one, spec in study.sets.items()]
    changed = [Cell(one, study.ablate.seeds[0], ablation) for one in study.ablate.sets for ablation in study.ablations]
    found = {str(cell): study.cell_settings(cell) for cell in [*every, *changed]}
    found |= {system: overlaid(found[str(every[0])], changes, system) for system, changes in study.systems.items()}
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
        ({"ablate": {"sets": ["one"], "seeds": [1], "names": ["no_mes"]}}, "names 'no_mes'"),
        ({"ablations": {"no_mse": {"distill.mes": 0}}}, "did you mean 'distill.mse'"),
        ({"systems": {"student_paper": {"predictor.product": 0}}}, "did you mean 'predictor.products'"),
        ({"split": "train"}, "expected test or dev"),
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


def test_committed_cells_count_as_those_run_here(root: Path):
    """A fresh clone would measure again for hours what its repository has; and without the data it would lose it."""
    change_study(root, publish=True)
    study = read_study("toy", root)
    cells = [Cell("one", 1), Cell("one", 1, "no_mse"), Cell("gone", 1)]
    finished = {cell: result(study, cell, student=[0.1, 0.25, 1 / 3, 1.0]) for cell in cells}
    commit_results(study, finished)
    assert read_results(study)[0] == finished
    assert not read_results(study, committed=False)[0]
    here = flat_result(study, cells[0], student=0.5)
    save(study, cells[0], here)
    found, missing = read_results(study)
    assert found[cells[0]] == here, "what was run here goes before what others have committed"
    assert "the cell that it starts from was measured anew" in missing[cells[1]], "its figures belong to other ones"
    change_study(root, publish=False)
    assert set(read_results(read_study("toy", root))[0]) == {cells[0]}, "only published studies are committed"


def test_a_failure_is_told(root: Path):
    """A cell that is missing without a reason cannot be put right."""
    study = read_study("toy", root)
    write_json(study.folder / "one-1" / study_module.FAILURE, {"message": "loss is nan"})
    assert read_results(study)[1][Cell("one", 1)] == "failed: loss is nan"


# --- summary ----------------------------------------------------------------------------------------------------------


def finished_toy(study: Study) -> dict[Cell, CellResult]:
    """Two seeds of `one`: the student beats the bi-encoder on every query once seeds are averaged."""
    others = {"bm25": [0.1] * 4, "biencoder_distilled": [0.2, 0.9, 0.2, 0.9], "teacher": [0.5] * 4}
    first = result(study, Cell("one", 1), student=[1.0, 0.0, 1.0, 0.0], biencoder=[0.4] * 4, **others)
    second = result(study, Cell("one", 2), student=[0.0, 1.0, 0.0, 1.0], biencoder=[0.4] * 4, **others)
    off = result(study, Cell("one", 1, "off_policy"), student=[0.5, 0.0, 0.5, 0.0], teacher=[0.5] * 4)
    return {Cell("one", 1): first, Cell("one", 2): second, Cell("one", 1, "off_policy"): off}


def test_summary_has_the_published_form(root: Path):
    """Whoever reads summary.json relies on these keys."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(
        study, finished_toy(study), {Cell("two", 1): "not run yet"}, "make study"
    )
    assert set(summary) == {"sets", "ablations", "command", "device"}
    row = summary["sets"]["one"]
    assert set(row) == {
        "num_queries", "num_documents", "backbone", "seeds", "systems", "retention", "student_vs_biencoder",
        "student_vs_biencoder_distilled",
    }  # fmt: skip
    assert set(row["systems"]) == set(SYSTEMS)
    assert set(row["systems"]["student"]) == {"nDCG@10", "R@1", "MRR@10", "S@1", "low", "high"}
    assert set(row["student_vs_biencoder"]) == {"difference", "low", "high"}
    assert set(summary["ablations"]["one"]["off_policy"]) == {"nDCG@10", "low", "high", "teacher_calls", "seconds"}
    assert row["seeds"] == [1, 2] and row["backbone"] == "small" and summary["device"] == "abacus"
    assert details["missing"] == [{"cell": "two, seed 1", "why": "not run yet"}]
    json.dumps([summary, details], allow_nan=False)


def test_intervals_are_over_queries_after_the_mean_over_seeds(root: Path):
    """Seeds taken for further queries make every interval too narrow; unpaired queries, too wide."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(study, finished_toy(study), {}, "make study")
    row = summary["sets"]["one"]
    # every query averages to 0.5 over the two seeds: no spread is left
    assert row["systems"]["student"]["low"] == row["systems"]["student"]["high"] == 50.0
    assert row["student_vs_biencoder"] == {"difference": 10.0, "low": 10.0, "high": 10.0}
    versus = row["student_vs_biencoder_distilled"]
    assert versus["difference"] == pytest.approx(-5.0) and versus["low"] == pytest.approx(-40.0, abs=1)
    assert row["retention"] == 100.0
    off = details["ablations"]["one"]["off_policy"]
    assert off["seeds"] == [1] and off["systems"]["student"]["difference"] == pytest.approx(-25.0)
    assert summary["ablations"]["one"]["default"]["nDCG@10"] == 50.0


def test_cells_of_different_data_are_not_averaged(root: Path):
    """A data folder that changed between two seeds would give the mean of two test sets."""
    study = read_study("toy", root)
    cells = {Cell("one", seed): result(study, Cell("one", seed), data=f"d{seed}", student=[1.0]) for seed in (1, 2)}
    with pytest.raises(ArtifactMismatchError, match="2 versions of the data"):
        study_summary.summarise(study, cells, {}, "make study")


def goal(goals: list[dict], part: str) -> dict:
    return next(one for one in goals if part in one["goal"])


def test_goals_are_computed(root: Path):
    """A goal that is typed stays reached when the figures no longer reach it."""
    study = read_study("toy", root)
    study.sets.clear()
    cells = {}
    for place in range(7):
        name = f"set{place}"
        data = "esconv" if place == 6 else name
        study.sets[name] = study_module.SetSpec(f"data/{data}", "small", [1], 1.0, rationale=place != 5)
        good = place != 4
        rows = {"frequency": 0.2, "bm25": 0.1, "biencoder": 0.4, "biencoder_distilled": 0.45, "teacher": 0.5}
        cells[Cell(name, 1)] = flat_result_without_conditions(name, **rows, student=0.5 if good else 0.3)
    study = study_module.dataclasses.replace(study, ablate=None, systems={**study.systems, "frequency": {}})
    goals = study_summary.summarise(study, cells, {}, "make study")[1]["goals"]
    assert goal(goals, "98 %")["reached"] is True and "6 of 7" in goal(goals, "98 %")["found"]
    assert goal(goals, "95 %")["reached"] is False and "set4 60.0 %" in goal(goals, "95 %")["found"]
    wins = goal(goals, "bi-encoder rows")
    assert wins["reached"] is False and "loses: set4" in wins["found"] and "set5" not in wins["found"]
    assert goal(goals, "esconv")["reached"] is True
    assert goal(goals, "on-policy")["reached"] is None


def flat_result_without_conditions(name: str, **means: float) -> CellResult:
    class Nothing:
        @staticmethod
        def conditions(cell: Cell) -> dict:
            return {}

    return flat_result(Nothing, Cell(name, 1), **means)


# --- page -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def update_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("update_results")


def test_page_is_the_committed_figures(update_results):
    """Figures typed by hand, or of an older study, drift from what was measured."""
    assert update_results.rendered() == update_results.PAGE.read_text(), "run: python docs/update_results.py"
    assert update_results.readme() == update_results.README.read_text(), "run: python docs/update_results.py"
    assert "student − distilled bi-encoder" in update_results.README.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "docs/study").glob("*.json")), ids=lambda path: path.stem)
def test_committed_summary_is_of_the_committed_cells(path: Path, tmp_path: Path):
    """A summary of cells that are gone, or were run with other settings, could not be made again."""
    study = replace(read_study(path.stem, ROOT), root=tmp_path)  # what was run here is left aside
    shutil.copytree(path.with_suffix(""), study.committed)
    finished, missing = read_results(study)
    content = json.loads(path.read_text())
    summary, _ = study_summary.summarise(study, finished, missing, content["summary"]["command"])
    assert summary == content["summary"]


def test_page_shows_the_study_and_keeps_remarks(update_results, root: Path, tmp_path: Path):
    """A generator that drops what was written by hand is run once."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(
        study, finished_toy(study), {Cell("two", 1): "not run yet"}, "make study"
    )
    studies, page = tmp_path / "study", tmp_path / "results.md"
    studies.mkdir()
    write_json(studies / "toy.json", {"summary": summary, "details": details})
    page.write_text(
        "<!-- remarks: toy -->\nBy hand.\n<!-- end remarks -->\n<!-- remarks: old -->\nOlder.\n<!-- end remarks -->\n"
    )
    text = update_results.rendered(page, studies)
    assert "<!-- remarks: toy -->\nBy hand.\n<!-- end remarks -->" in text and "Older." in text
    assert "**+10.0 (+10.0 to +10.0)**" in text, "a significant difference is bold"
    assert " −5.0 (−40.0 to +" in text and "| off_policy | 25.0 | −25.0 (−50.0 to +0.0) |" in text
    assert "two, seed 1: every system: not run yet" in text and "abacus" in text and "not reached" in text
    page.write_text(text)
    assert update_results.rendered(page, studies) == text, "written twice, the page changes"


def test_plots_are_drawn(root: Path, tmp_path: Path):
    """A study of hours must not end in a picture that cannot be drawn."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(study, finished_toy(study), {}, "make study")
    study_summary.draw_quality(summary, tmp_path / "quality.png")
    study_summary.draw_ablations(summary, details, tmp_path / "ablations.png")
    for name in ("quality", "ablations"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
