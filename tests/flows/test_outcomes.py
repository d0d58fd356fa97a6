"""The name a retraining ends in, who is told, and what becomes of data that break the contract."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flows import retrain
from flows.common import guard
from rabtriever.core.settings import load_params
from rabtriever.data import beir_io
from rabtriever.data.beir_io import DataContractError
from rabtriever.data.preparation import PrepareParams
from rabtriever.ops import dvc_stages, inbox, notify
from tests.toy import alias, dataset, set_params


@pytest.fixture
def told(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Outcome and reason of what goes to the webhook."""
    sent: list[tuple[str, str]] = []
    monkeypatch.setenv(notify.WEBHOOK, "http://127.0.0.1:9/hook")
    monkeypatch.setattr(notify, "send", lambda url, message: sent.append((message["outcome"], message["reason"])))
    return sent


def deliver(folder: Path) -> Path:
    """A data set with a document id that is there twice, as somebody delivers it."""
    data = dataset("wish")
    beir_io.write_corpus(folder / "corpus.jsonl", data.corpus)
    with open(folder / "corpus.jsonl", "a") as file:
        file.write('{"_id": "d00", "title": "", "text": "again"}\n')
    beir_io.write_queries(folder / "queries.jsonl", data.queries)
    for split in ("train", "test"):
        beir_io.write_qrels(folder / f"qrels/{split}.tsv", data.qrels["test"])
    (folder / "notes.bin").write_bytes(b"not part of it")
    return folder


def source() -> str:
    """The data set of params.yaml."""
    return load_params(PrepareParams, "prepare").source


def test_s02_each_end_has_its_name_and_is_told(told: list[tuple[str, str]], project: Path) -> None:
    """S02: prevents a refusal, an idle run and a promotion that look alike; here without any server."""
    assert retrain.bring_up_to_date().outcome == "Promoted"
    assert retrain.bring_up_to_date().outcome == "Nothing to do"
    set_params("index", quality=0.1)
    assert retrain.bring_up_to_date().outcome == "Refused" and alias("champion") == "1"
    set_params("index", fail=True)
    with pytest.raises(dvc_stages.StageFailed):
        retrain.bring_up_to_date()
    with pytest.raises(inbox.DataQuarantined):
        retrain.bring_up_to_date(str(deliver(project / "incoming")))
    assert [outcome for outcome, _ in told] == [
        "Promoted",
        "Nothing to do",
        "Refused",
        "Failed",
        "Data quarantined",
    ]
    reasons = [reason for _, reason in told]
    assert "floor" in reasons[0] and reasons[1].startswith("version 1 is the retriever of these data")
    assert "it may be worse than the champion" in reasons[2] and reasons[3].startswith("stage 'index' failed: ")
    assert reasons[3].endswith("shard 3 has 7 vectors, expected 8; encode the corpus again"), "what the screen says"
    assert alias("champion") == "1"


def test_s02_an_idle_or_failing_run_by_hand_is_told_once(told: list[tuple[str, str]], project: Path) -> None:
    """S02: prevents a schedule of cron that nobody hears of, and messages in pairs."""
    retrain.bring_up_to_date()
    told.clear()
    retrain.run_once(None)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("index:", "indx:"))
    with pytest.raises(SystemExit), guard("retrain"):
        retrain.run_once(None)
    assert [outcome for outcome, _ in told] == ["Nothing to do", "Failed"] and "did you mean 'index'" in told[1][1]


@pytest.mark.parametrize("way", ["run_once", "bring_up_to_date"])
def test_s02_bad_data_are_set_aside_with_a_report(told: list[Any], project: Path, way: str) -> None:
    """S02: prevents bad data from stopping every later run, or from being overwritten before anybody saw them."""
    folder, before = deliver(project / "incoming"), Path("params.yaml").read_bytes()
    for _ in range(2):
        with pytest.raises(inbox.DataQuarantined, match=r"(?s)d00.*set aside in .*champion stays"):
            getattr(retrain, way)(str(folder))
    [kept] = [path for path in (project / "quarantine").iterdir() if path.is_dir()]
    assert (
        kept.name.startswith("incoming-")
        and (kept / "corpus.jsonl").read_bytes() == (folder / "corpus.jsonl").read_bytes()
    )
    assert (kept / "qrels/test.tsv").is_file() and not (kept / "notes.bin").exists()
    report = json.loads((kept / "report.json").read_text())
    assert "d00" in report["reason"] and report["data"] == str(folder) and report["found_at"]
    assert "d00" in (kept / "report.md").read_text()
    assert (project / "quarantine/.gitignore").read_text() == "*\n"
    assert Path("params.yaml").read_bytes() == before and not Path("data/prepared").exists()
    assert [outcome for outcome, _ in told] == ["Data quarantined"] * 2


def test_s02_an_incomplete_delivery_is_set_aside_too(told: list[Any], project: Path) -> None:
    """S02: prevents a missing file from being taken for a failure of the pipeline; a neighbour of broken data."""
    folder = deliver(project / "incoming")
    (folder / "qrels/test.tsv").unlink()
    with pytest.raises(inbox.DataQuarantined, match=r"test\.tsv"):
        retrain.bring_up_to_date(str(folder))


@pytest.mark.parametrize("name", ["docs", "absent"])
def test_s02_what_is_no_data_set_is_left_alone(told: list[Any], project: Path, name: str) -> None:
    """S02: prevents copies of any folder that somebody named by mistake."""
    (project / "docs").mkdir()
    (project / "docs/page.md").write_text("text")
    with pytest.raises(FileNotFoundError):
        retrain.bring_up_to_date(name)
    assert not (project / "quarantine").exists() and [outcome for outcome, _ in told] == ["Failed"]


def test_s02_a_source_that_was_refreshed_with_bad_data(
    told: list[Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S02: prevents the other way in: a folder in params.yaml that something else writes anew."""
    retrain.bring_up_to_date()
    deliver(project / "raw")
    Path("raw.txt").write_text("wish")
    before = dvc_stages.run_stage

    def fail(stage: str, *arguments: Any) -> bool:
        if stage == "prepare":
            raise dvc_stages.StageFailed("stage 'prepare' failed")
        return before(stage, *arguments)

    monkeypatch.setattr(dvc_stages, "run_stage", fail)
    with pytest.raises(inbox.DataQuarantined, match="d00"):
        retrain.bring_up_to_date()
    assert told[-1][0] == "Data quarantined" and source() == "raw" and alias("champion") == "1"
    shutil.rmtree(project / "raw")
    with pytest.raises(dvc_stages.StageFailed):
        retrain.bring_up_to_date()


def test_s02_no_room_for_the_copy_still_tells_what_is_wrong(
    told: list[Any], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S02: prevents a full disk from hiding what is wrong with the data."""

    def fail(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(DataContractError, match=r"(?s)d00.*could not be set aside: .*No space left"):
        retrain.bring_up_to_date(str(deliver(project / "incoming")))
    assert told[-1][0] == "Failed" and not list(project.glob("quarantine/*"))
