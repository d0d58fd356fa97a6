"""The gate on a registry: what is lost in sum, the order of record and promotion, the champion on new data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, write_json
from rabtriever.data.metrics import METRICS
from rabtriever.data.preparation import write_dataset
from rabtriever.ops import gate, registry, tracking
from rabtriever.ops import register as stage
from rabtriever.ops.answering import FORMAT_TAG
from rabtriever.ops.registry import RegisteredVersion
from tests import toy
from tests.toy import alias, build, set_params


def register() -> RegisteredVersion:
    """Registers the retriever that `build` has left."""
    with tracking.stage_run("register", {}) as run:
        stage.run(stage.Sections(), gate._PATHS, run)
    return gate.challenger()


class MemoryRegistry:
    """Stands where `rabtriever.ops.registry` does: versions of one data set, of which each query has one quality."""

    def __init__(self) -> None:
        self.quality: dict[str, float] = {}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.withdrawn: set[str] = set()
        self.formats: dict[str, str] = {}
        self.in_service: str | None = None

    def add(self, quality: float) -> RegisteredVersion:
        """A new version, with a nDCG@10 of this many per cent for every query."""
        version = str(len(self.quality) + 1)
        self.quality[version] = quality
        return self.version(version)

    def version(self, number: str) -> RegisteredVersion:
        tags = {FORMAT_TAG: self.formats.get(number, "2")}
        return RegisteredVersion(number, f"retriever {number}", "data", "run", tags)

    def versions(self) -> list[RegisteredVersion]:
        return [self.version(number) for number in self.quality]

    def champion(self) -> RegisteredVersion | None:
        return None if self.in_service is None else self.version(self.in_service)

    def per_query(self, version: RegisteredVersion) -> dict[str, dict[str, float]]:
        values = dict.fromkeys(METRICS, self.quality[version.version] / 100)
        return {f"q{number}": {**values, "R@100": 1.0} for number in range(50)}

    def check_answers(self, version: RegisteredVersion) -> None:
        """Every version answers."""

    def is_withdrawn(self, version: RegisteredVersion) -> bool:
        return version.version in self.withdrawn

    def last_decision(self, version: RegisteredVersion) -> dict[str, Any] | None:
        return self.decisions.get(version.version)

    def record_decision(self, version: RegisteredVersion, decision: dict[str, Any]) -> None:
        self.decisions[version.version] = decision

    def promote(self, version: RegisteredVersion) -> None:
        self.in_service = version.version


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryRegistry:
    """A registry without a store, in a folder with settings and a report of the data."""
    monkeypatch.chdir(tmp_path)
    made = MemoryRegistry()
    monkeypatch.setattr(gate, "registry", made)
    toy.make_project(tmp_path)
    write_json("reports/data.json", {"hash": "data"})
    return made


def judged(memory: MemoryRegistry, quality: float, biencoder: float = 0.0) -> dict[str, Any]:
    """The decision on a new version of this quality."""
    version = memory.add(quality)
    write_json("reports/gate.json", {"retriever": version.retriever_hash, "biencoder_ndcg_10": biencoder})
    return gate.judge(version)


def test_s04_forty_challengers_each_a_little_worse(memory: MemoryRegistry) -> None:
    """S04: prevents a chain of promotions, each within the tolerance, from losing 28 points in sum."""
    decisions = [judged(memory, 82.0 - 0.7 * place) for place in range(41)]
    promoted = [decision["ndcg_10"] for decision in decisions if decision["promoted"]]
    assert promoted == pytest.approx([82.0, 81.3, 80.6]) and memory.in_service == "3"
    refused = decisions[3]
    assert refused["interval"]["low"] > -1.0, "against the champion alone it would pass"
    assert "2.1 points below the 82.0 of version 1, the best of these data" in refused["reason"]
    assert refused["best"] == {"version": "1", "ndcg_10": pytest.approx(82.0)}


def test_s04_the_setting_is_the_bound(memory: MemoryRegistry) -> None:
    """S04: prevents a bound that does nothing, or that is counted from the last champion."""
    set_params("promote", max_total_loss=7.0)
    for place in range(41):
        judged(memory, 82.0 - 0.7 * place)
    assert memory.quality[memory.in_service] == pytest.approx(75.0)


def test_s04_other_data_and_withdrawn_versions_are_no_bar(memory: MemoryRegistry) -> None:
    """S04: prevents a version that was taken out of service, or one of other data, from barring all others."""
    judged(memory, 90.0)
    memory.withdrawn.add("1")
    memory.in_service = None
    assert judged(memory, 60.0)["promoted"]
    memory.withdrawn.clear()
    before = memory.version
    memory.version = lambda number: replace(before(number), data_hash="old" if number == "1" else "data")
    assert judged(memory, 59.5)["best"]["version"] == "2"


def test_s04_a_refused_version_is_no_bar(memory: MemoryRegistry) -> None:
    """S04: prevents a version that never served, such as one that cannot, from barring all others."""
    assert not judged(memory, 90.0, biencoder=95.0)["promoted"]
    assert judged(memory, 60.0)["best"] is None and memory.in_service == "2"


def test_s04_a_student_far_below_its_biencoder_is_refused(memory: MemoryRegistry) -> None:
    """S04: prevents a distillation that went wrong from serving because it is the first, or beats a bad champion."""
    first = judged(memory, 50.0, biencoder=52.5)
    assert not first["promoted"] and "2.5 points below the 52.5 of the bi-encoder of the same run" in first["reason"]
    assert memory.in_service is None and first["biencoder_ndcg_10"] == 52.5
    assert judged(memory, 50.0, biencoder=51.9)["promoted"]


def test_s04_the_figures_must_be_of_the_challenger(memory: MemoryRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """S04: prevents a comparison with the bi-encoder of another run, told after minutes of evaluating the champion."""
    memory.in_service = memory.add(50.0).version
    version = memory.add(50.0)
    monkeypatch.setattr(gate, "_champion_scores", lambda *_: pytest.fail("evaluated first"))
    write_json("reports/gate.json", {"retriever": "another", "biencoder_ndcg_10": 0.0})
    told = (
        r"reports/gate\.json is of the retriever another, version 2 is retriever 2; evaluate this one first \(dvc repro"
    )
    with pytest.raises(ArtifactMismatchError, match=told):
        gate.judge(version)
    assert memory.in_service == "1" and not memory.decisions


def test_a_champion_of_an_older_format_is_told(memory: MemoryRegistry) -> None:
    """Prevents a run that stops at a champion that is not opened here, and one that passes for compared."""
    judged(memory, 90.0)
    memory.formats["1"] = "1"
    set_params("promote", min_ndcg_10=40.0)
    refused = judged(memory, 39.0)
    assert not refused["promoted"] and memory.in_service == "1"
    told = "version 1 has format 1, not answered here: judged as a first version; "
    assert refused["reason"] == told + "nDCG@10 39.0 is under a first version's floor of 40.0"
    taken = judged(memory, 41.0)
    assert taken["promoted"] and taken["reason"].startswith(told) and memory.in_service == "3"
    assert taken["champion"] == "1", "which version it replaces is recorded"
    assert taken["champion_ndcg_10"] is None and taken["interval"] is None and taken["best"] is None
    assert "format" not in judged(memory, 41.0)["reason"], "from then on versions are compared"


def test_a_version_of_an_older_format_is_no_bar(memory: MemoryRegistry) -> None:
    """Prevents figures that were measured on other queries from barring all versions to come."""
    judged(memory, 90.0)
    judged(memory, 89.5)
    memory.formats["1"] = "1"
    assert judged(memory, 89.5)["best"] == {"version": "2", "ndcg_10": pytest.approx(89.5)}
    memory.formats["2"] = "0"
    assert judged(memory, 89.5)["best"]["version"] == "3"


def test_a_decision_that_cannot_be_recorded_moves_no_alias(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a champion of which nothing tells why it is one: the record comes before the promotion."""
    build(0.5)
    assert gate.judge(register())["promoted"]
    build(0.9)
    better = register()
    for owner, name in ((registry, "record_decision"), (gate, "write_json")):

        def fail(*arguments: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space left"):
                gate.judge(better)
        assert (alias("champion"), alias("previous")) == ("1", None)
    assert gate.judge(gate.challenger())["promoted"] and alias("champion") == "2"
    assert json.loads(Path("reports/promotion.json").read_text())["version"] == "2"


@pytest.mark.parametrize(("quality", "promoted"), [(0.6, False), (0.95, True)])
def test_a_good_champion_holds_on_new_data(project: Path, quality: float, promoted: bool) -> None:
    """Prevents ranking the champion on other queries than the new dev queries: test queries, or those of its own data.

    The champion knows the dev queries of the new data, and none of the test queries.
    """
    build(0.0, dev=0.9)
    gate.judge(register())
    data = toy.dataset()
    corpus = {**data.corpus, "d99": data.corpus["d00"]._replace(doc_id="d99", title="Another thing")}
    grown = data.__class__(corpus, data.queries, data.qrels)
    write_dataset(grown, "data/prepared")
    write_json("reports/data.json", {"hash": grown.hash})
    toy._index(quality)
    challenger = register()
    assert challenger.data_hash != registry.champion().data_hash
    decision = gate.judge(challenger)
    assert decision["champion_ndcg_10"] == pytest.approx(registry.last_decision(registry.get("1"))["ndcg_10"], abs=2)
    assert decision["promoted"] is promoted and alias("champion") == ("2" if promoted else "1")
    assert read_json("reports/promotion.json")["champion_ndcg_10"] > 85


@pytest.mark.parametrize(("dev", "promoted"), [(0.5, False), (0.9, True)])
def test_the_gate_judges_on_dev_queries(project: Path, dev: float, promoted: bool) -> None:
    """Prevents promotions that choose by the test queries, which the table then reports as if nobody had looked."""
    build(0.5, dev=0.9)
    assert gate.judge(register())["ndcg_10"] > 90
    build(1.0, dev=dev)  # all test queries are answered
    decision = gate.judge(register())
    assert decision["promoted"] is promoted and alias("champion") == ("2" if promoted else "1")
    assert decision["interval"]["mean"] == pytest.approx(decision["ndcg_10"] - decision["champion_ndcg_10"])
    found = registry.per_query(registry.get("2"))
    assert sorted(found) == sorted(toy.dataset().qrels["dev"])
    assert sum(scores["MRR@10"] == 1 for scores in found.values()) == round(dev * toy.NUM_QUERIES)


def test_worse_on_dev_and_equal_on_test_is_refused(project: Path) -> None:
    """Prevents a loss that only the queries of the gate show."""
    build(0.5, dev=0.9)
    gate.judge(register())
    before = read_json("reports/evaluation.json")["systems"]
    build(0.5, dev=0.6)
    decision = gate.judge(register())
    assert read_json("reports/evaluation.json")["systems"] == before
    assert not decision["promoted"] and decision["interval"]["high"] < 0 and alias("champion") == "1"


def test_s04_the_biencoder_is_measured_on_dev(project: Path) -> None:
    """S04: prevents comparing the student's dev queries with the bi-encoder's test queries."""
    build(1.0, dev=0.5, biencoder=90.0)
    decision = gate.judge(register())
    assert not decision["promoted"] and "the 90.0 of the bi-encoder of the same run" in decision["reason"]
    assert decision["biencoder_ndcg_10"] == 90.0
