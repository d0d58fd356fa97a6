"""The product on a tiny cut of the embedded data: raw folder to promoted retriever, twice, then used."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rabtriever.core.profiles import load_profile, save_profile
from rabtriever.core.settings import save_param
from rabtriever.data import beir_io
from rabtriever.lm.small_model import build_tokenizer
from rabtriever.ops.estimate import HISTORY, TYPICAL
from tests.closure import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.server]
STEPS = 40
CHANCE = 100 * sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / 60  # nDCG@10 of any order, one of 60 is right
PROMOTED = (r"^version 1 was promoted ", r"^champion: version 1, this retriever \(models:/rabtriever@champion\)$")
SYSTEMS = {"bm25", "biencoder", "student", "teacher", "biencoder_prior", "student_prior", "teacher_prior"}
ROW = {"nDCG@10", "MRR@10", "R@1", "R@3", "R@10", "R@100", "S@1", "ms_per_query", "ms_per_query_p95"}


def tiny_cut(folder: Path) -> None:
    """60 documents of the embedded set with the queries that they answer, as a raw BEIR folder without dev split."""
    source = beir_io.load_dataset(ROOT / "data/household")
    corpus = dict(list(source.corpus.items())[:60])
    (folder / "qrels").mkdir(parents=True)
    beir_io.write_corpus(folder / "corpus.jsonl", corpus)
    queries: dict[str, str] = {}
    for split, limit in (("train", 80), ("test", 100)):
        inside = {
            query_id: {doc_id: grade for doc_id, grade in grades.items() if doc_id in corpus}
            for query_id, grades in source.qrels[split].items()
        }
        kept = dict([item for item in inside.items() if item[1]][:limit])
        beir_io.write_qrels(folder / f"qrels/{split}.tsv", kept)
        queries |= {query_id: source.queries[query_id] for query_id in kept}
    beir_io.write_queries(folder / "queries.jsonl", queries)


def tiny_llama(folder: Path) -> None:
    """A pretrained-shaped model as a user has it: config, weights and tokenizer in one folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    texts = [document.contents for document in beir_io.read_corpus(ROOT / "data/household/corpus.jsonl").values()]
    tokenizer = build_tokenizer(texts, 600, (" yes", " no"))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy project."""
    return make_project(tmp_path_factory.mktemp("project"))


def make_project(root: Path, steps: int = STEPS) -> Path:
    """A copy of the repository with a raw folder and a model of its own, and few steps everywhere."""
    for name in ("flows", "src", ".dvc"):
        shutil.copytree(
            ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp", "*.egg*")
        )
    for name in ("data", "mlruns"):
        (root / name).mkdir()
    for name in ("dvc.yaml", ".gitignore", ".dvcignore", "mlruns/.gitignore"):
        shutil.copy(ROOT / name, root / name)
    tiny_cut(root / "data/raw")
    tiny_llama(root / "llama")
    path = shutil.copy(ROOT / "params.yaml", root)
    save_profile(load_profile("small", path, ROOT / "profiles"), path)  # whatever the checkout has been set to
    save_param(path, "prepare.source", "data/raw")
    save_param(path, "backbone.source", "llama")
    params = re.sub(r"^(  steps:) \d+", rf"\1 {steps}", Path(path).read_text(), flags=re.MULTILINE)
    params = re.sub(r"(min_ndcg_10|min_recall_100): [\d.]+", r"\1: 0.0", params)
    Path(path).write_text(re.sub(r"max_total_loss: [\d.]+", "max_total_loss: 100.0", params))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
        "PREFECT_HOME": str(root / ".cache/prefect"),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=root, env=environment, text=True, **pipes) as child:
        try:
            printed = child.communicate(timeout=1200)
        except BaseException:  # asked to end, a run also ends its server and the stage at work
            child.send_signal(signal.SIGINT)
            raise
    return subprocess.CompletedProcess(command, child.returncode, *printed)


def test_raw_folder_to_promoted_retriever_and_back(project: Path):
    """The one path every user takes: run, run again for nothing, search, load from the registry elsewhere."""
    committed = run(project, "git", "status", "--porcelain").stdout
    first = run(project, sys.executable, "-m", "flows.retrain")
    assert first.returncode == 0, first.stdout + first.stderr
    report = json.loads((project / "reports/evaluation.json").read_text())
    assert set(report["systems"]) == SYSTEMS
    assert all(set(row) == ROW | {"bytes_per_document"} for row in report["systems"].values())
    assert (report["num_documents"], report["num_queries"]) == (60, 100)
    ranked = {name: row["nDCG@10"] for name, row in report["systems"].items()}
    trained = {name: ranked[name] for name in ("biencoder", "teacher", "student")}
    assert min(trained.values()) > 1.3 * CHANCE, ranked
    assert trained["student"] > 0.8 * trained["teacher"], ranked
    for line in PROMOTED:
        assert re.search(line, first.stdout, re.MULTILINE), first.stdout
    decision = json.loads((project / "reports/promotion.json").read_text())
    assert decision["promoted"] and decision["champion"] is None and decision["version"] == "1"
    measured = json.loads((project / "reports/gate.json").read_text())
    kept = beir_io.read_qrels(project / "data/prepared/qrels/dev.tsv")
    assert set(measured["per_query"]) == set(kept) and len(kept) == 5, "cut from train by hash"
    values = [scores["nDCG@10"] for scores in measured["per_query"].values()]
    assert decision["ndcg_10"] == pytest.approx(100 * sum(values) / 5)
    assert decision["biencoder_ndcg_10"] == measured["biencoder_ndcg_10"] > 0
    assert (report["served"], report["search"], report["shortlist_recall"]) == ("student", "exact scan", None)
    taken = json.loads((project / HISTORY).read_text())
    phases = {stage: known.phases for stage, known in TYPICAL.items()}
    assert {stage: count for stage, (_, count) in taken.items()} == phases, "as a first run is told them"
    before = (project / "dvc.lock").read_text()

    second = run(project, sys.executable, "-m", "flows.retrain")
    assert second.returncode == 0, second.stdout + second.stderr
    assert (project / "dvc.lock").read_text() == before
    assert "train_teacher" not in second.stdout, "a stage ran again with nothing changed"
    for line in PROMOTED:
        assert re.search(line, second.stdout, re.MULTILINE), second.stdout
    assert json.loads((project / "reports/promotion.json").read_text()) == decision
    stale = json.loads(run(project, sys.executable, "-m", "dvc", "status", "--json").stdout)
    assert set(stale) == {"code"}, "S09: that stage counts as changed at all times"
    changed = run(project, "git", "status", "--porcelain").stdout
    assert changed == committed, "S10: whatever a run writes is ignored"

    found = run(project, sys.executable, "-m", "rabtriever.cli", "search", "it is dark", "-k", "3")
    assert found.returncode == 0, found.stderr
    names = re.findall(r"^\d\. +-?[\d.]+  (d\d{3})\b", found.stdout, re.MULTILINE)
    assert len(set(names)) == 3
    code = (
        "import mlflow; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        "import pandas as pd; model = mlflow.pyfunc.load_model('models:/rabtriever@champion');"
        "answer = model.predict(pd.DataFrame({'query': ['it is dark', 'the floor is wet']}), params={'k': 2});"
        "print(*(','.join(hit['doc_id'] for hit in hits) for hits in answer['hits']))"
    )
    loaded = run(project, sys.executable, "-c", code)
    assert loaded.returncode == 0, loaded.stderr
    dark, wet = (hits.split(",") for hits in loaded.stdout.splitlines()[-1].split())
    assert dark == names[:2] and len(set(wet)) == 2


AGAIN = """
from flows.build_index import build_index
from flows.distill_student import distill
from flows.mine_candidates import mine
from flows.train_biencoder import train_biencoder
from flows.train_teacher import train_teacher

for stage in (train_biencoder, train_teacher, mine, distill, build_index):
    stage.fn()
"""


def test_equal_inputs_give_equal_artefacts(project: Path):
    """A retriever that comes out otherwise with nothing changed is registered and judged as a new one."""
    if not (project / "reports/evaluation.json").is_file():
        pytest.skip("needs the finished run of the test before")
    folders = ("models/*", "data/embeddings", "data/candidates")
    manifests = [path for pattern in folders for path in sorted(project.glob(f"{pattern}/manifest.json"))]
    before = {path: path.read_text() for path in manifests}
    done = run(project, sys.executable, "-c", AGAIN)
    assert done.returncode == 0, done.stderr
    changed = [str(path.relative_to(project)) for path in manifests if path.read_text() != before[path]]
    assert not changed and len(manifests) == 6


def test_a_bad_folder_stops_before_anything_is_touched(project: Path):
    """Bad data must end with one message, and leave settings and results as they were."""
    if not (project / "reports/evaluation.json").is_file():
        pytest.skip("needs the finished run of the test before")
    bad = project / "bad"
    shutil.copytree(project / "data/raw", bad)
    with open(bad / "corpus.jsonl", "a") as file:
        file.write('{"_id": "broken"\n')
    settings = (project / "params.yaml").read_text()
    done = run(project, sys.executable, "-m", "flows.retrain", "--data", "bad")
    assert done.returncode == 1
    assert "corpus.jsonl:61" in done.stderr
    assert "Traceback" not in done.stderr
    assert (project / "params.yaml").read_text() == settings
    assert (project / "reports/evaluation.json").is_file()


SERVED = """
import json, rabtriever
print(json.dumps(rabtriever.evaluate(rabtriever.Retriever.load("models/retriever"), "data/prepared")))
"""


def test_a_document_prior_is_indexed_as_the_table_says(project: Path):
    """The row that advises to switch the prior on must be what is served then, and nothing else is trained again."""
    if not (project / "reports/evaluation.json").is_file():
        pytest.skip("needs the finished run of the first test")
    before = json.loads((project / "reports/evaluation.json").read_text())["systems"]
    save_param(project / "params.yaml", "index.document_prior", True)
    save_param(project / "params.yaml", "promote.tolerance", 100.0)
    done = run(project, sys.executable, "-m", "flows.retrain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\[\d/3\] (\w+)$", done.stdout, re.MULTILINE) == ["build_index", "evaluate", "register"]
    report = json.loads((project / "reports/evaluation.json").read_text())
    after = report["systems"]
    for name in ("student", "student_prior"):
        assert after[name]["nDCG@10"] == pytest.approx(before[name]["nDCG@10"], abs=0.01), "the rows mean the same"
    assert report["served"] == "student_prior" and after["student_prior"]["nDCG@10"] != after["student"]["nDCG@10"]
    answered = run(project, sys.executable, "-c", SERVED)
    assert answered.returncode == 0, answered.stderr
    served = json.loads(answered.stdout.splitlines()[-1])
    assert served["nDCG@10"] == pytest.approx(after["student_prior"]["nDCG@10"], abs=0.05)
    decision = json.loads((project / "reports/promotion.json").read_text())
    assert decision["promoted"] and (decision["version"], decision["champion"]) == ("2", "1")
