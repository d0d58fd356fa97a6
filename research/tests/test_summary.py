"""What the figures of a study say, the goals, and the page."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, write_json
from research import definition as study_module
from research import goals, plots, tables, update_log
from research import summary as study_summary
from research.definition import Study, Trial, read_study
from research.finished import TrialResult, commit_results, estimate, read_groups, read_results
from research.tests.toy_study import SYSTEMS, change_study, flat_result, result
from tests.closure import ROOT

# --- summary ----------------------------------------------------------------------------------------------------------


def finished_toy(study: Study) -> dict[Trial, TrialResult]:
    """Two seeds of `one`: the student beats the bi-encoder on every query once seeds are averaged."""
    others = {"bm25": [0.1] * 4, "biencoder_distilled": [0.2, 0.9, 0.2, 0.9], "teacher": [0.5] * 4}
    first = result(study, Trial("one", 1), student=[1.0, 0.0, 1.0, 0.0], biencoder=[0.4] * 4, **others)
    second = result(study, Trial("one", 2), student=[0.0, 1.0, 0.0, 1.0], biencoder=[0.4] * 4, **others)
    off = result(study, Trial("one", 1, "off_policy"), student=[0.5, 0.0, 0.5, 0.0], teacher=[0.5] * 4)
    return {Trial("one", 1): first, Trial("one", 2): second, Trial("one", 1, "off_policy"): started(off, first)}


def started(ablation: TrialResult, base: TrialResult) -> TrialResult:
    """An ablation of that very run."""
    return replace(ablation, start={name: base.per_query[name] for name in ablation.per_query})


def test_summary_has_the_published_form(root: Path):
    """Whoever reads summary.json relies on these keys."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(
        study, finished_toy(study), {Trial("two", 1): "not run yet"}, "make study"
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
    assert details["missing"] == [{"trial": "two, seed 1", "why": "not run yet"}]
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


def test_an_ablation_is_compared_with_the_run_that_it_started_from(root: Path):
    """Another machine's default differs by more than most ablations change."""
    study = read_study("toy", root)
    trials = finished_toy(study)
    here = result(study, Trial("one", 1), student=[0.0] * 4, teacher=[0.5] * 4)
    for both in (trials, {**trials, Trial("one", 1): here}):
        found = {trial: one for trial, one in both.items() if trial.seed == 1}
        details = study_summary.summarise(replace(study, systems={"student": {}, "teacher": {}}), found, {}, "")[1]
        assert details["ablations"]["one"]["off_policy"]["systems"]["student"]["difference"] == -25.0
        assert details["on_policy"]["one"]["default"]["difference"] == 25.0


def test_a_system_that_some_seeds_lack_names_the_others(root: Path):
    """The mean of one seed beside that of two is another draw; a reader has to know."""
    study = read_study("toy", root)
    trials = finished_toy(study)
    first = Trial("one", 1, "off_policy")
    second = result(study, first._replace(seed=2), student=[0.0] * 4, teacher=[0.2] * 4)
    trials[first] = trials[first].without("teacher")
    trials[first._replace(seed=2)] = started(second, trials[Trial("one", 2)])
    summary, details = study_summary.summarise(study, trials, {}, "")
    changed = details["ablations"]["one"]["off_policy"]
    assert changed["seeds"] == [1, 2] and "seeds" not in changed["systems"]["student"]
    assert changed["systems"]["teacher"]["seeds"] == [2]
    assert changed["systems"]["teacher"]["difference"] == pytest.approx(-30.0)
    assert details["ablations_together"]["off_policy"]["teacher"]["difference"] == pytest.approx(-30.0)
    assert "teacher (seeds 2) 20.0" in tables.ablation_part("one", summary, details)


def test_trials_of_different_data_are_not_averaged(root: Path):
    """A data folder that changed between two seeds would give the mean of two test sets."""
    study = read_study("toy", root)
    trials = {Trial("one", seed): result(study, Trial("one", seed), data=f"d{seed}", student=[1.0]) for seed in (1, 2)}
    with pytest.raises(ArtifactMismatchError, match="2 versions of the data"):
        study_summary.summarise(study, trials, {}, "make study")


def goal(goals: list[dict], part: str) -> dict:
    return next(one for one in goals if part in one["goal"])


def test_goals_are_computed(root: Path):
    """A goal that is typed stays reached when the figures no longer reach it."""
    study = read_study("toy", root)
    study.sets.clear()
    trials = {}
    for place in range(7):
        name = f"set{place}"
        data = "esconv" if place == 6 else name
        study.sets[name] = study_module.SetSpec(f"data/{data}", "small", [1], 1.0, rationale=place != 5)
        good = place != 4
        rows = {"frequency": 0.2, "bm25": 0.1, "biencoder": 0.4, "biencoder_distilled": 0.45, "teacher": 0.5}
        trials[Trial(name, 1)] = flat_result_without_conditions(name, **rows, student=0.5 if good else 0.3)
    study = study_module.dataclasses.replace(study, ablate=None, systems={**study.systems, "frequency": {}})
    goals = study_summary.summarise(study, trials, {}, "make study")[1]["goals"]
    assert goal(goals, "98 %")["reached"] is True and "6 of 7" in goal(goals, "98 %")["found"]
    assert goal(goals, "95 %")["reached"] is False and "set4 60.0 %" in goal(goals, "95 %")["found"]
    wins = goal(goals, "bi-encoder rows")
    assert wins["reached"] is False and "loses: set4" in wins["found"] and "set5" not in wins["found"]
    assert goal(goals, "esconv")["reached"] is True
    assert goal(goals, "on-policy")["reached"] is None


def test_on_policy_is_judged_by_pairs(root: Path):
    """Random candidates with few teacher calls, compared to mined ones with many, would make any mining look good."""
    study = read_study("toy", root)
    study.ablations.update(few={"mine.queries": 1}, few_off_policy={"mine.queries": 1, "mine.depth": 0})
    few = {"few": [0.2, 0.0, 0.2, 0.0], "few_off_policy": [0.1, 0.1, 0.1, 0.1]}
    trials = finished_toy(study)
    base = trials[Trial("one", 1)]
    for name, row in few.items():
        trials[Trial("one", 1, name)] = started(result(study, Trial("one", 1, name), student=row), base)
    _, details = study_summary.summarise(study, trials, {}, "make study")
    found = details["on_policy"]["one"]
    assert found["default"]["difference"] == 25.0 and found["default"]["seeds"] == [1]
    assert found["few"]["difference"] == 0.0 and found["few"]["low"] < 0
    assert goal(details["goals"], "on-policy")["reached"] is False
    trials[Trial("one", 1, "few")] = started(trials[Trial("one", 1, "few")], trials[Trial("one", 2)])
    _, details = study_summary.summarise(study, trials, {}, "make study")
    assert set(details["on_policy"]["one"]) == {"default"}, "students of two teachers are no pair"
    for seed in (1, 2):
        del trials[Trial("one", seed)]  # to be measured again, its ablations not
    summary, details = study_summary.summarise(study, trials, {}, "make study")
    assert "one" not in summary["sets"] and goal(details["goals"], "on-policy")["reached"] is False
    kept = goal(details["goals"], "98 %")["found"]
    assert f" of {len(summary['sets'])}: " in kept, "what was not measured is not counted among what was"


def test_on_policy_needs_more_than_a_majority():
    """Of several sets that show chance alone, half are ahead."""
    sets = {name: name for name in ("a", "b", "c")}
    better = {name: {"few": {"difference": 1.0, "low": -0.1 if name == "a" else 0.1}} for name in sets}
    sure = {"difference": 1.0, "low": 0.2, "high": 1.8}

    def judged(changes: dict, together: dict) -> dict:
        ends = {label: {"low": -0.1, "high": 2.0} if label == "few" else None for label in together}
        details = {
            "sets": {}, "on_policy": changes, "on_policy_together": together, "on_policy_resampled": ends,
        }  # fmt: skip
        return goal(goals.goals({"sets": {}}, details, sets), "on-policy")

    few = judged(better, {"few": sure})
    assert few["reached"] is None, "what is judged is what is shipped"
    together = "together +1.0 (+0.2 to +1.8), resampled by groups of like queries −0.1 to +2.0"
    assert few["found"] == f"few: 3 of 3: a, b, c; significantly on b, c; {together}"
    default = {name: {**rows, "default": rows["few"]} for name, rows in better.items()}
    assert judged(default, {"few": sure, "default": sure})["reached"] is True
    assert judged(default, {"few": sure, "default": {**sure, "low": -0.1}})["reached"] is False
    sets["a"] = "a-b"
    assert "few: 3 of 3: a-b, b, c;" in judged(better, {"few": {**sure, "low": -0.1}})["found"], (
        "a name keeps its hyphen"
    )
    del default["a"]["default"]
    assert judged(default, {"few": sure, "default": sure})["reached"] is False


def flat_result_without_conditions(name: str, **means: float) -> TrialResult:
    class Nothing:
        @staticmethod
        def conditions(trial: Trial) -> dict:
            return {}

    return flat_result(Nothing, Trial(name, 1), **means)


# --- page -------------------------------------------------------------------------------------------------------------


def test_page_is_the_committed_figures():
    """Figures typed by hand, or of an older study, drift from what was measured."""
    page = ROOT / update_log.PAGE
    assert update_log.rendered(page, ROOT / update_log.RESULTS) == page.read_text(), "run python -m research.update_log"


@pytest.mark.parametrize("path", sorted((ROOT / "research/results").glob("*.json")), ids=lambda path: path.stem)
def test_committed_summary_is_of_the_committed_trials(path: Path, tmp_path: Path):
    """A summary of trials that are gone, or were run with other settings, could not be made again."""
    study = replace(read_study(path.stem, ROOT), root=tmp_path)  # what was run here is left aside
    shutil.copytree(path.with_suffix(""), study.committed)
    finished, missing = read_results(study)
    content = json.loads(path.read_text())
    groups = read_groups(study, finished)
    summary, details = study_summary.summarise(study, finished, missing, content["summary"]["command"], groups)
    assert summary == content["summary"]
    elsewhere = {"complexity", "missing"}  # why a trial is missing depends on the data that are there
    assert {**details, **dict.fromkeys(elsewhere)} == {**content["details"], **dict.fromkeys(elsewhere)}


def test_page_shows_the_study_and_keeps_remarks(root: Path, tmp_path: Path):
    """A generator that drops what was written by hand is run once."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(
        study, finished_toy(study), {Trial("two", 1): "not run yet"}, "make study"
    )
    studies, page = tmp_path / "study", tmp_path / "results.md"
    studies.mkdir()
    write_json(studies / "toy.json", {"summary": summary, "details": details})
    page.write_text(
        "<!-- remarks: toy -->\nBy hand.\n<!-- end remarks -->\n<!-- remarks: old -->\nOlder.\n<!-- end remarks -->\n"
    )
    text = update_log.rendered(page, studies)
    assert "<!-- remarks: toy -->\nBy hand.\n<!-- end remarks -->" in text and "Older." in text
    assert "**+10.0 (+10.0 to +10.0)**" in text, "a significant difference is bold"
    assert " −5.0 (−40.0 to +" in text and "| off_policy | 25.0 | 50.0 | −25.0 (−50.0 to +0.0) |" in text
    assert "| **student** | 50.0 |" in text and "| off_policy | −25.0 (−50.0 to +0.0) |" in text, "of all sets"
    assert "| one | +25.0 (+0.0 to +50.0) |" in text, "on-policy less off-policy"
    assert "| queries of all sets | +25.0 (+0.0 to +50.0) |" in text
    assert "- two, seed 1: not run yet\n" in text and "abacus" in text and "not reached" in text
    page.write_text(text)
    assert update_log.rendered(page, studies) == text, "written twice, the page changes"


def test_page_of_a_study_on_dev_queries(root: Path, tmp_path: Path):
    """Alternatives of a bi-encoder would be lost in tables of the student, and goals judged on what was tuned on."""
    change_study(root, split="dev", ablate={"sets": ["one"], "seeds": [1], "alone": {"biencoder": ["no_mse"]}})
    study = read_study("toy", root)
    finished = finished_toy(study)
    base = finished[Trial("one", 1)]
    finished[Trial("one", 1, "no_mse")] = started(result(study, Trial("one", 1, "no_mse"), biencoder=[0.3] * 4), base)
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    assert not details["goals"] and set(summary["ablations"]["one"]) == {"default", "off_policy"}
    plots.draw_ablations(summary, details, tmp_path / "ablations.png")
    text = page(tmp_path, summary, details)
    lines = [line.strip("| ") for line in text.split("### Alternatives")[1].splitlines() if line.startswith("|")]
    starts = ("**student** | 50.0", "off_policy | −25.0 (", "**biencoder** | ", "no_mse | ")
    assert all(line.startswith(start) for line, start in zip(lines[2:6], starts, strict=True)), lines
    assert lines[3].count("−25.0 (−50.0 to +0.0)") == 2, "of the one set, and of all its queries"
    assert "Goal" not in text
    summary, details = study_summary.summarise(study, {}, {}, "make study")
    write_json(tmp_path / "study/toy.json", {"summary": summary, "details": details})
    text = update_log.rendered(tmp_path / "results.md", tmp_path / "study")
    assert "## Study `toy`" in text and "Alternatives" not in text, "nothing is finished yet"


def page(folder: Path, summary: dict, details: dict) -> str:
    """The page of this study alone."""
    (folder / "study").mkdir()
    write_json(folder / "study/toy.json", {"summary": summary, "details": details})
    return update_log.rendered(folder / "results.md", folder / "study")


def test_study_may_be_of_rivals_alone(root: Path, tmp_path: Path):
    """Without a student in it, the plot of its ablations ended a study whose trials were all finished."""
    left = {"source": "data/one", "backbone": "small", "seeds": [1], "minutes": 1, "leave_out": ["student", "teacher"]}
    alone = {"sets": ["one"], "seeds": [1], "names": ["no_mse"], "alone": {"biencoder": ["no_mse"]}}
    change_study(root, split="dev", sets={"one": left}, ablate=alone)
    study = read_study("toy", root)
    base = result(study, Trial("one", 1), bm25=[0.1] * 4, biencoder=[0.4] * 4, biencoder_distilled=[0.5] * 4)
    trial = Trial("one", 1, "no_mse")
    finished = {Trial("one", 1): base, trial: started(result(study, trial, biencoder=[0.3] * 4), base)}
    for one in finished.values():
        for fact in ("teacher_calls", "seconds", "seconds_to_student"):
            del one.info[fact]
    base.info["teacher_scope"] = None
    assert estimate(study, Trial("one", 1, "no_mse"), {Trial("one", 1): base}) > 0
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    plots.draw_ablations(summary, details, tmp_path / "ablations.png")
    assert not plots.draw_rivals(summary, details, tmp_path / "rivals.png"), "there is no student to compare"
    text = page(tmp_path, summary, details)
    assert "| no_mse | **−10.0 (−10.0 to −10.0)** |" in text
    assert "the teacher scores" not in text and "| one |  |" not in text, "what there is none of is not shown as empty"


def test_wins_of_paraphrases_alone_are_named(root: Path):
    """A set of few different requests, asked often, won with an interval that their number does not give."""
    study = read_study("toy", root)
    asked = [0.9, 0.9, 0.9, 0.1] * 20
    rows = {"bm25": [0.1] * 80, "biencoder": [0.4] * 80, "biencoder_distilled": [0.4] * 80, "teacher": [0.5] * 80}
    finished = {Trial("one", 1): result(study, Trial("one", 1), student=asked, **rows)}
    alike = {f"q{place}": str(place % 4 if place < 68 else place) for place in range(80)}
    apart = {f"q{place}": str(place) for place in range(80)}
    for groups, sure in ((alike, False), (apart, True)):
        _, details = study_summary.summarise(study, finished, {}, "make study", {"one": groups})
        assert ("not one" not in goal(details["goals"], "beats both")["found"]) is sure
        assert details["sets"]["one"]["resampled"]["student_vs"]["biencoder"]["seeds"] is None
    _, details = study_summary.summarise(study, finished, {}, "make study")
    assert details["sets"]["one"]["resampled"] == {"groups": None, "student_vs": {}}, "its data are not there"


def test_groups_are_of_the_data_or_as_committed(root: Path):
    """The page must be the same where the data sets are not: what was found with them is committed."""
    study = replace(read_study("toy", root), publish=True)
    finished = finished_toy(study)
    qrels = root / "data/one/qrels"
    qrels.mkdir()
    lines = [f"q{place}\td{place % 2}\t1" for place in range(5)]
    (qrels / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    groups = read_groups(study, finished)
    assert groups == {"one": {"q0": 0, "q1": 1, "q2": 0, "q3": 1}}, "of the queries measured"
    commit_results(study, finished, groups)
    shutil.rmtree(root / "data/one")
    assert read_groups(study, finished) == groups
    some = {"q0": 0, "q4": 0}
    commit_results(study, {}, {"other": some, "one": some})
    assert read_groups(study, finished) == groups, "where a part is measured afresh, what is known of the rest stays"
    assert read_groups(replace(study, split="dev"), finished) == {}


def test_other_forms_are_compared_with_the_default(root: Path, tmp_path: Path):
    """DPO that helps no set but one, and a page on which one has to subtract to see it."""
    names = ("student", "student_paper", "teacher", "teacher_dpo")
    change_study(root, systems={name: {} for name in names}, ablate=None)
    study = read_study("toy", root)
    rows = {"student": [0.5] * 4, "teacher": [0.6, 0.6, 0.6, 0.2]}
    one = result(study, Trial("one", 1), student_paper=[0.4] * 4, teacher_dpo=[0.6, 0.6, 0.6, 0.6], **rows)
    finished = {Trial("one", 1): one, Trial("two", 1): result(study, Trial("two", 1), **rows)}
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    text = page(tmp_path, summary, details)
    head, _, *body = text.split("### Other forms of student and teacher\n\n")[1].split("\n\n")[0].splitlines()
    assert head == "|  | student_paper − student | teacher_dpo − teacher |"
    assert body == ["| one | **−10.0 (−10.0 to −10.0)** | +10.0 (+0.0 to +30.0) |"], "set two has neither"


def test_student_is_compared_with_changed_rivals_of_its_own_run(root: Path, tmp_path: Path):
    """A rival given more steps may be ahead of the student, and no row of the table said by how much."""
    names = {"sets": ["one"], "seeds": [1], "names": ["no_mse"], "alone": {"biencoder": ["no_mse"]}}
    change_study(root, ablate=names)
    study = read_study("toy", root)
    finished = finished_toy(study)
    base, trial = finished[Trial("one", 1)], Trial("one", 1, "no_mse")
    finished = {Trial("one", 1): base, trial: started(result(study, trial, biencoder=[0.6] * 4), base)}
    summary, details = study_summary.summarise(study, finished, {}, "make study")
    (change,) = details["student_vs_changed"]["one"]["no_mse"]["rivals"].values()
    assert change["difference"] == pytest.approx(-10.0)
    text = page(tmp_path, summary, details)
    assert "| one | no_mse | bi-encoder | 1 | −10.0 (−60.0 to +40.0) |" in text
    other = {**finished, Trial("one", 1): result(study, Trial("one", 1), student=[0.0] * 4, biencoder=[0.1] * 4)}
    _, details = study_summary.summarise(replace(study, systems={"student": {}, "biencoder": {}}), other, {}, "")
    assert not details["student_vs_changed"], "another run's student"


def test_a_student_changed_with_its_rival_is_compared_with_that_one(root: Path):
    """A better teacher is shown to help the student, and not that it helps the rival as much."""
    alone = {"student": ["no_mse"], "biencoder": ["no_mse"]}
    change_study(root, ablate={"sets": ["one"], "seeds": [1], "names": ["no_mse", "off_policy"], "alone": alone})
    study = read_study("toy", root)
    trials = finished_toy(study)
    trial = Trial("one", 1, "no_mse")
    trials[trial] = started(result(study, trial, student=[0.7] * 4, biencoder=[0.6] * 4), trials[Trial("one", 1)])
    details = study_summary.summarise(study, trials, {}, "make study")[1]
    assert list(details["student_vs_changed"]["one"]) == ["no_mse"]
    assert details["student_vs_changed"]["one"]["no_mse"]["rivals"]["biencoder"]["difference"] == pytest.approx(10.0)


def test_systems_keep_their_order_where_the_first_set_lacks_some():
    """A column moved behind the teacher when household had not measured it yet."""
    rows = {"a": ["bm25", "student"], "b": ["bm25", "student_paper", "student"], "c": ["zeroshot"]}
    summary = {"sets": {name: {"systems": dict.fromkeys(systems, {})} for name, systems in rows.items()}}
    assert study_summary.systems_measured(summary) == ["bm25", "student_paper", "student", "zeroshot"]


def test_plots_are_drawn(root: Path, tmp_path: Path):
    """A study of hours must not end in a picture that cannot be drawn."""
    study = read_study("toy", root)
    summary, details = study_summary.summarise(study, finished_toy(study), {}, "make study")
    plots.draw_quality(summary, tmp_path / "quality.png")
    plots.draw_ablations(summary, details, tmp_path / "ablations.png")
    assert plots.draw_rivals(summary, details, tmp_path / "rivals.png")
    for name in ("quality", "ablations", "rivals"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
