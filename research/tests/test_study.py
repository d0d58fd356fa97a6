"""The study end to end on a few documents: killed, run, with a trial that fails, and run again for nothing."""

from __future__ import annotations

import contextlib
import shutil
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from rabtriever.core.artifacts import read_json, write_json
from rabtriever.ops import tracking
from research import study, systems
from research import trial as trial_module
from research.definition import Trial
from research.scheduler import Scheduler
from research.tests.toy_study import flat_result
from tests.closure import ROOT
from tests.toy import wait_for

SET = {"source": str(ROOT / "data/household"), "backbone": "small", "seeds": [1], "minutes": 1}
STUDY = {
    "settings": {
        "prepare.max_test_queries": 8,
        "prepare.max_dev_queries": 4,
        "small_model.vocabulary": 400,
        "small_model.width": 16,
        "small_model.layers": 1,
        "small_model.heads": 2,
        "small_model.feed_forward": 16,
        "warmup.steps": 2,
        "warmup.batch_size": 8,
        "train_teacher.steps": 4,  # a quarter of it is the steps of DPO
        "train_teacher.queries": 2,
        "train_teacher.reader_steps": 2,
        "polish.steps": 2,
        "polish.pool": 6,
        "train_biencoder.steps": 2,
        "train_biencoder.batch_size": 4,
        "mine.queries": 6,
        "mine.depth": 4,
        "predictor.hidden": 4,
        "predictor.products": 2,
        "distill.steps": 2,
        "distill.queries": 2,
        "index.dimension": 4,
        "index.steps": 0,
        "evaluate.timed_queries": 1,
        "evaluate.samples": 1,
    },
    "backbones": {"small": {"profile": "small"}},
    "sets": {
        "few": {**SET, "documents": 12, "train_queries": 20},
        "bad": {**SET, "minutes": 2, "settings": {"small_model.width": 10}},
    },
    "ablations": {
        "no_similarity": {"train_teacher.similarity": 0.0},
        "plain_mlp": {"predictor.form": "mlp"},
        "sharp": {"train_biencoder.temperature": 0.03},
        "paper_wide": {"predictor.hidden": 12},
        "dpo_tight": {"train_teacher.dpo_beta": 2.0},
    },
    "ablate": {
        "sets": ["few"],
        "seeds": [1],
        "alone": {"biencoder": ["sharp"], "student_paper": ["paper_wide"], "teacher_dpo": ["dpo_tight"]},
    },
    "further": {"ablations": {"few": ["plain_mlp"]}},
    "complexity": {"set": "few", "sizes": [20, 40], "lengths": [4, 8], "repeats": 1},
}
SYSTEMS = ["frequency", "bm25", "zeroshot", "biencoder", "biencoder_distilled", "biencoder_calibrated",
           "distilled_calibrated", "late_interaction", "student_paper", "student", "teacher",
           "teacher_dpo"]  # fmt: skip


@pytest.fixture(autouse=True)
def groups_of_one_length() -> None:
    """Batches are grouped as in a worker's process, which knows nothing of the shared fixture of this name."""


@pytest.fixture
def project(tmp_path: Path, store_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's settings with the study `toy`, as the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", tracking.PARENT_RUN, "DVC_STAGE", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "research/studies").mkdir(parents=True)
    shared = yaml.safe_load((ROOT / "research/studies/common.yaml").read_text())
    content = {**STUDY, "systems": shared["systems"], "sections": shared["sections"]}
    (tmp_path / "research/studies/toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / ".cache/study/toy/mlruns").mkdir(parents=True)
    shutil.copy(store_template, tmp_path / ".cache/study/toy/mlruns/mlflow.db")
    return tmp_path


@pytest.mark.slow
def test_a_study_from_kill_to_nothing_left(project: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """A kill must cost one step, a failing trial itself alone, and a finished study nothing."""
    with monkeypatch.context() as patch:
        patch.setattr(systems.evaluation, "biencoder_system", killed_after(1, systems.evaluation.biencoder_system))
        with pytest.raises(KeyboardInterrupt):
            study.study.fn("toy")
    trial = project / ".cache/study/toy/few-1"
    assert not (trial / "trial.json").exists() and not (trial / ".stamps/measure-zeroshot.json").exists()
    trained = (trial / ".stamps/train_teacher.json").read_bytes()

    with pytest.raises(study.TrialsFailed, match="1 failed"):
        study.study.fn("toy")
    assert not (trial / "ablations/plain_mlp").exists(), "nobody asked for what is further"
    with pytest.raises(study.TrialsFailed, match="1 failed"):
        study.study.fn("toy", further=True)
    assert (trial / ".stamps/train_teacher.json").read_bytes() == trained, "a finished stage was run again"
    failure = read_json(project / ".cache/study/toy/bad-1/failure.json")
    assert "small_model.width 10 must be" in failure["message"] and str(project) not in failure["message"]

    summary, details = (read_json(project / f"reports/study/{name}.json") for name in ("summary", "details"))
    row = summary["sets"]["few"]
    assert list(row["systems"]) == SYSTEMS and row["num_queries"] == 8 and row["num_documents"] < 60
    assert set(summary["ablations"]["few"]) == {"default", "no_similarity", "plain_mlp"}
    assert set(details["ablations"]["few"]["no_similarity"]["systems"]) == {"student", "teacher"}
    assert set(details["ablations"]["few"]["plain_mlp"]["systems"]) == {"student"}, "the teacher is the base trial's"
    assert set(details["ablations"]["few"]["sharp"]["systems"]) == {"biencoder"}, "which is what it is about"
    assert (trial / "ablations/sharp/models/teacher").is_symlink(), "a teacher was trained for a bi-encoder's setting"
    check_an_ablation_of_a_system_with_settings_of_its_own(trial)
    check_that_dpo_goes_on_from_the_teacher(trial)
    assert {one["system"] for one in details["complexity"]["rows"]} >= {"teacher", "student", "biencoder"}
    assert [one["trial"] for one in details["missing"]] == ["bad, seed 1"]
    for name in ("quality", "ablations", "complexity"):
        assert (project / f"reports/study/{name}.png").is_file()
    assert (trial / "ablations/no_similarity/models/backbone").is_symlink()
    assert not (trial / "ablations/no_similarity/models/teacher").is_symlink()
    indices = [path / "models/retriever" for path in (trial / "ablations").iterdir()]
    assert len(indices) == 5 and all(path.is_symlink() for path in indices), "an index was built for an ablation"
    info = read_json(trial / "trial.json")
    assert info["teacher_calls"] > 0 and info["seconds"]["train_teacher"] > 0 and info["device"]

    content = yaml.safe_load((project / "research/studies/toy.yaml").read_text())
    del content["sets"]["bad"]
    (project / "research/studies/toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    monkeypatch.setattr(study, "prefect_api", lambda: pytest.fail("a server was started for nothing"))
    capsys.readouterr()
    study.run_once("toy")
    assert "6 trials finished" in capsys.readouterr().out
    assert read_json(project / "reports/study/summary.json") == summary
    check_that_a_clone_has_the_figures(project, content, summary)


def check_that_dpo_goes_on_from_the_teacher(trial: Path):
    """A teacher and its reader trained again, for a row that shall differ from `teacher` by DPO alone."""
    for where in (trial, trial / "ablations/dpo_tight"):
        workspace = where / "variants/teacher_dpo"
        start = read_json(workspace / ".stamps/train_teacher.json")["inputs"]["hashes"][systems.PLAIN_TEACHER]
        assert start == read_json(trial / "models/teacher/manifest.json")["hash"]
        assert not (workspace / "models/teacher").is_symlink()


def check_an_ablation_of_a_system_with_settings_of_its_own(trial: Path):
    """The paper's student would be measured as ours under its name, or its teacher trained again for nothing."""
    changed = trial / "ablations/paper_wide"
    assert list(read_json(changed / "trial.json")["systems"]) == ["student_paper"]
    base = read_json(trial / "per_query.json")
    assert read_json(changed / "start.json") == {"student_paper": base["student_paper"]}
    student = "variants/student_paper/models/student/1"
    form = {where: read_json(where / student / "manifest.json")["info"] for where in (trial, changed)}
    assert form[changed]["hidden"] == 12 and form[trial]["hidden"] == 8
    assert form[changed]["products"] == form[trial]["products"] == 0
    assert (changed / "variants/student_paper/models/teacher").is_symlink()
    assert (changed / "models/student/1").is_symlink(), "ours was trained too"
    assert read_json(changed / "trial.json")["spent"] > 0


def check_that_a_clone_has_the_figures(project: Path, content: dict, summary: dict):
    """Publishes a finished study, and reads it where it was not run."""
    (project / "research/studies/toy.yaml").write_text(yaml.safe_dump({**content, "publish": True}, sort_keys=False))
    study.run_once("toy")
    shutil.rmtree(project / ".cache/study/toy/few-1")
    (project / ".cache/study/toy/complexity.json").unlink()
    study.run_once("toy")
    assert read_json(project / "reports/study/summary.json") == summary, "a clone has the figures without running"
    assert "**few**" in (project / "research/log.md").read_text()
    assert (project / "research/results/toy-complexity.png").is_file()
    check_that_a_system_is_added_to_what_others_measured(project, content)
    (project / "research/results/toy/few-1/ablations/plain_mlp.json").unlink()
    published = study.read_study("toy")
    assert not study._todo(published, [])
    todo = [str(one) for one in study._todo(published, [], further=True)]
    assert todo == ["few, seed 1", "few, seed 1, plain_mlp"], "an ablation starts from a trial that was run here"
    scheduler = Scheduler(published, study._todo(published, [], further=True), False, study.run_one)
    assert scheduler._whole == {Trial("few", 1)}
    assert len(study._todo(published, [], afresh=True)) == 5 and not study._complexity_due(published, afresh=False)


def check_that_a_system_is_added_to_what_others_measured(project: Path, content: dict):
    """One more system would cost all the others again, hours of them, or nobody would know that it was another run."""
    path, committed = project / "research/studies/toy.yaml", project / "research/results/toy/few-1.json"
    before = read_json(committed)
    few = {**content["sets"]["few"], "leave_out": ["late_interaction"]}
    systems = {**content["systems"], "student_paper": {"predictor.products": 0}}
    less = {**content, "publish": True, "sets": {"few": few}, "systems": systems}
    path.write_text(yaml.safe_dump(less, sort_keys=False))
    per_query = {name: found for name, found in before["per_query"].items() if name != "late_interaction"}
    info = {
        **before["info"],
        "systems": {name: row for name, row in before["info"]["systems"].items() if name in per_query},
        "device": "abacus",
        "conditions": study.read_study("toy").conditions(Trial("few", 1)),
    }
    worse = {**per_query, "student_paper": [0.0] * len(before["queries"])}
    write_json(committed, {**before, "info": info, "per_query": worse})
    path.write_text(yaml.safe_dump({**content, "publish": True}, sort_keys=False))
    study.study.fn("toy")
    after = read_json(committed)
    assert after["per_query"] == before["per_query"] and list(after["info"]["systems"]) == SYSTEMS
    assert after["info"]["device"] == "abacus" and after["info"]["seconds"] == before["info"]["seconds"]
    assert set(after["info"]["added"]) == {"late_interaction", "student_paper"}
    page = (project / "research/log.md").read_text()
    assert "Measured later, in runs of their own: late_interaction, student_paper." in page
    trial = project / ".cache/study/toy/few-1"
    models = {one.name for one in (trial / "models").iterdir()}
    assert models == {"backbone", "late_interaction"}, "more was trained than the new system needs"
    check_what_it_cost(trial, after["info"]["spent"] - before["info"]["spent"])
    assert Trial("few", 1) in study.read_results(study.read_study("toy"), committed=False)[1]
    assert not study._complexity_due(study.read_study("toy"), afresh=False)


def check_what_it_cost(trial: Path, spent: float):
    """The study would seem to take hours longer than in one run, which warms up and trains a teacher once."""
    added = {"train_late_interaction", "measure-late_interaction", "distill-0", "mine-1", "distill-1", "build_index",
             "measure-student_paper"}  # fmt: skip
    again = {"prepare", "subset-12-20-test", "backbone", "train_biencoder", "train_teacher", "embed_corpus", "mine-0"}
    stamps = [path for folder in (trial, trial / "variants/student_paper") for path in folder.glob(".stamps/*.json")]
    own = {path.stem: read_json(path)["seconds"] for path in stamps if read_json(path)["own"]}
    assert set(own) == added | again
    assert spent == pytest.approx(sum(own[name] for name in added), abs=0.05)


@pytest.mark.parametrize("own", [{}, {"distill.labels": 0.5}])
def test_student_and_teacher_are_of_one_run(project: Path, own: dict):
    """A student added to what others measured would be compared with another run's teacher."""
    from research.trial import _known

    path = project / "research/studies/toy.yaml"
    content = {**yaml.safe_load(path.read_text()), "publish": True}
    left = {**content["sets"]["few"], "leave_out": ["student"]}
    path.write_text(yaml.safe_dump({**content, "sets": {"few": left}, "further": None, "complexity": None}))
    less, trial = study.read_study("toy"), Trial("few", 1)
    study.commit_results(less, {trial: flat_result(less, trial, **dict.fromkeys(less.systems_of("few"), 0.5))}, {})
    systems = {**content["systems"], "student": own}
    path.write_text(yaml.safe_dump({**content, "systems": systems}, sort_keys=False))
    more = study.read_study("toy")
    assert study.read_results(more)[1][trial] == "was run without student"
    assert _known(more, trial, base=None) is None


@pytest.mark.slow
def test_trials_side_by_side(project: Path, one_thread, capfd):
    """Two workers measure something else than one, start an ablation before its base, or garble their lines."""
    definition = study.read_study("toy")
    with pytest.raises(study.TrialsFailed, match="1 failed"):
        study.study.fn("toy")
    alone = {str(one): found for one, found in study.read_results(definition)[0].items()}
    for path in (project / ".cache/study/toy").glob("*-1"):
        shutil.rmtree(path)
    content = yaml.safe_load((project / "research/studies/toy.yaml").read_text())
    (project / "research/studies/toy.yaml").write_text(yaml.safe_dump({**content, "workers": 2}, sort_keys=False))
    capfd.readouterr()
    with pytest.raises(study.TrialsFailed, match="1 failed"):
        study.study.fn("toy")
    together = {str(one): found for one, found in study.read_results(study.read_study("toy"))[0].items()}
    assert {one: found.per_query for one, found in together.items()} == {
        one: found.per_query for one, found in alone.items()
    }
    assert "small_model.width 10 must be" in read_json(project / ".cache/study/toy/bad-1/failure.json")["message"]
    printed = capfd.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("few, seed 1 | prepare: ")]
    ends = {"] few, seed 1: ": (" s)", " min)"), "] few, seed 1, no_similarity: ": (" s", " min")}
    lines = [next(line for line in printed if one in line and line.endswith(end)) for one, end in ends.items()]
    places = [printed.index(line) for line in lines]
    assert places == sorted(places), "an ablation starts from a finished trial"


def test_rivals_alone_want_no_teacher(project: Path):
    """Two more sets for one question about the bi-encoder took two trained students, an hour."""
    path = project / "research/studies/toy.yaml"
    content = yaml.safe_load(path.read_text())
    rivals = ["zeroshot", "biencoder"]
    content["sets"] = {"few": {**content["sets"]["few"], "leave_out": [one for one in SYSTEMS if one not in rivals]}}
    ablate = {**content["ablate"], "names": ["sharp"], "alone": {"biencoder": ["sharp"]}}
    content |= {"ablate": ablate, "further": None, "complexity": None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    summary = study.study.fn("toy")
    assert list(summary["sets"]["few"]["systems"]) == rivals
    models = {one.name for one in (project / ".cache/study/toy/few-1/models").iterdir()}
    assert models == {"backbone", "biencoder"}
    details = read_json(project / "reports/study/details.json")
    assert set(details["ablations"]["few"]["sharp"]["systems"]) == {"biencoder"} and not details["missing"]


def killed_after(count: int, function):
    """The function, which is interrupted when it has been called so often."""
    left = [count]

    def call(*arguments, **named):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return function(*arguments, **named)

    return call


def test_only_what_is_named_is_run(project: Path, capsys):
    """A misspelt name would run the whole study, or nothing without a word."""
    definition = study.read_study("toy")
    assert {str(one) for one in study._todo(definition, ["few"])} == {
        "few, seed 1",
        "few, seed 1, no_similarity",
        "few, seed 1, sharp",
        "few, seed 1, paper_wide",
        "few, seed 1, dpo_tight",
    }
    assert {one.set for one in study._todo(definition, ["household"])} == {"few", "bad"}, "by the name of the data"
    with pytest.raises(ValueError, match="no set 'fwe', expected of few, bad"):
        study._todo(definition, ["fwe"])
    with pytest.raises(ValueError, match="no set 'fwe'"):
        study.run_once("toy", ["fwe"], summary_only=True)


def test_a_cost_that_cannot_be_measured_is_told(project: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Every run says that one has failed, and nothing of it what."""
    definition = study.read_study("toy")
    monkeypatch.setattr(study, "_complexity_due", lambda *_: True)
    monkeypatch.setattr("research.trial.measure_complexity", Mock(side_effect=ValueError("4000 tokens do not fit")))
    assert study._run_trials(definition, [], afresh=False) == {"complexity": "4000 tokens do not fit"}
    assert "complexity: failed: 4000 tokens do not fit" in capsys.readouterr().out


class BrokenPool(Executor):
    """Has lost its processes."""

    def submit(self, fn, /, *arguments, **named):
        done = Future()
        done.set_exception(BrokenExecutor("a child died"))
        return done


def test_a_killed_process_is_told(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Where memory runs out a study ends in a traceback, without a summary of the hours before."""
    monkeypatch.setattr(study, "process_pool", lambda workers: contextlib.nullcontext(BrokenPool()))
    with pytest.raises(study.TrialsFailed, match="1 failed"):
        study.study.fn("toy", ["few"])
    (told,) = [one for one in read_json(study.TARGET / "details.json")["missing"] if one["trial"] == "few, seed 1"]
    assert "memory runs out" in told["why"]


def test_two_processes_do_not_share_a_study(project: Path):
    """Two would train in the same folders."""
    definition = study.read_study("toy")
    with (
        study._exclusive(definition),
        pytest.raises(BlockingIOError, match="another process"),
        study._exclusive(definition),
    ):
        pass


def test_a_system_nobody_can_measure_is_named_first(project: Path):
    """It would be found after the pipeline of the first trial has run."""
    from research.trial import check_systems

    path = project / "research/studies/toy.yaml"
    content = yaml.safe_load(path.read_text())
    content["systems"]["oracle"] = {}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match="no system 'oracle'"):
        check_systems(study.read_study("toy"))


@pytest.mark.server
def test_trials_are_task_runs_of_one_flow(project: Path, monkeypatch: pytest.MonkeyPatch):
    """Prevents trials that nobody sees in Prefect, and a failing one that ends the flow before the others."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    ran = []

    def run_trial(definition, trial, whole):
        ran.append((str(trial), whole))
        if trial.set == "bad":
            raise ValueError("a bad trial")

    monkeypatch.setattr(trial_module, "run_trial", run_trial)
    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        with pytest.raises(study.TrialsFailed):
            study.study("toy", further=True)
        # the server records task runs from events, which may come after the flow has ended
        wait_for(
            lambda: sum(run.state is not None and run.state.is_final() for run in client.read_task_runs()) == 7, 30
        )
        states = {run.name: run.state_name for run in client.read_task_runs()}
        flows = [run.state_name for run in client.read_flow_runs()]
    names = ["no_similarity", "plain_mlp", "sharp", "paper_wide", "dpo_tight"]
    ablations = dict.fromkeys([f"few, seed 1, {name}" for name in names], "Completed")
    assert states == {"few, seed 1": "Completed", **ablations, "bad, seed 1": "Failed"}
    assert flows == ["Failed"] and len(ran) == 7
    assert [name for name, whole in ran if whole] == ["few, seed 1"], (
        "ablations start from nothing that others measured"
    )
