"""A repository with a study `toy`, and trials of it that nobody ran."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import yaml

from rabtriever.core.artifacts import write_json
from rabtriever.data.metrics import METRICS
from research import definition as study_module
from research.definition import Study, Trial
from research.finished import TrialResult
from tests.closure import ROOT

SYSTEMS = ("bm25", "biencoder", "biencoder_distilled", "student", "teacher")


def toy_repository(folder: Path) -> Path:
    """A repository with two data folders and a small study `toy`."""
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "research/studies").mkdir(parents=True)
    (folder / "profiles").mkdir()
    shutil.copy(ROOT / "profiles/small.yaml", folder / "profiles")
    for name in ("one", "two"):
        (folder / "data" / name).mkdir(parents=True)
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
    write_study(folder, content)
    return folder


def write_study(root: Path, content: dict[str, Any]) -> None:
    (root / "research/studies/toy.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def change_study(root: Path, **changes: Any) -> None:
    path = root / "research/studies/toy.yaml"
    write_study(root, {**yaml.safe_load(path.read_text()), **changes})


def result(study: Study, trial: Trial, spent: float = 60.0, data: str = "d", **ndcg: list[float]) -> TrialResult:
    """A finished trial: nDCG@10 from 0 to 1 per query by system."""
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
        "set": trial.set,
        "seed": trial.seed,
        "ablation": trial.ablation,
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
        "conditions": study.conditions(trial),
    }
    return TrialResult(info, per_query, per_query if trial.ablation else {})  # as if it had changed nothing


def flat_result(study: Study, trial: Trial, **means: float) -> TrialResult:
    return result(study, trial, **{name: [mean] * 4 for name, mean in means.items()})


def save(study: Study, trial: Trial, one: TrialResult) -> None:
    write_json(study.folder / trial.folder / study_module.RESULT, one.info)
    write_json(study.folder / trial.folder / study_module.PER_QUERY, one.per_query)
    if trial.ablation:
        write_json(study.folder / trial.folder / study_module.START, one.start)
