"""The gate on a registry: what is lost in sum, the order of record and promotion, the champion on new data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rabtriever.core.artifacts import ArtifactMismatchError, read_json, write_json
from rabtriever.data.metrics import METRICS
from rabtriever.data.preparation import write_dataset
from rabtriever.ops import gate, registry, tracking
from rabtriever.ops import register as stage
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
        self.in_service: str | None = None

    def add(self, quality: float) -> RegisteredVersion:
        """A new version, with a nDCG@10 of this many per cent for every query."""
        version = str(len(self.quality) + 1)
        self.quality[version] = quality
        return self.version(version)

    def version(self, number: str) -> RegisteredVersion:
        return RegisteredVersion(number, f"retriever {number}", "data", "run", {})

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


def judged(memory: MemoryRegistry, quality: float, biencoder: float | None = None) -> dict[str, Any]:
    """The decision on a new version of this quality."""
    version = memory.add(quality)
    systems = {"student": {"nDCG@10": quality}}
    if biencoder is not None:
        systems["biencoder"] = {"nDCG@10": biencoder}
    write_json("reports/evaluation.json", {"retriever": version.retriever_hash, "systems": systems})
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
    """S04: prevents a version that was taken out of service, or one of another test set, from barring all others."""
    judged(memory, 90.0)
    memory.withdrawn.add("1")
    memory.in_service = None
    assert judged(memory, 60.0)["promoted"]
    memory.withdrawn.clear()
    before = memory.version
    memory.version = lambda number: before(number) if number != "1" else RegisteredVersion("1", "r", "old", "run", {})
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


def test_s04_the_table_must_be_of_the_challenger(memory: MemoryRegistry) -> None:
    """S04: prevents a comparison with the bi-encoder of another run."""
    version = memory.add(50.0)
    write_json("reports/evaluation.json", {"retriever": "another", "systems": {}})
    with pytest.raises(ArtifactMismatchError, match="is of the retriever another, version 1 is retriever 1"):
        gate.judge(version)
    assert memory.in_service is None and not memory.decisions


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
    """Prevents ranking the champion on other queries than the new test queries: dev queries, or those of its own data.

    The champion knows the test queries of the new data, and the new data have no dev queries.
    """
    build(0.9)
    gate.judge(register())
    data = toy.dataset()
    corpus = {**data.corpus, "d99": data.corpus["d00"]._replace(doc_id="d99", title="Another thing")}
    grown = data.__class__(corpus, data.queries, {**data.qrels, "train": {}, "dev": {}})
    write_dataset(grown, "data/prepared")
    write_json("reports/data.json", {"hash": grown.hash})
    toy._index(quality)
    challenger = register()
    assert challenger.data_hash != registry.champion().data_hash
    decision = gate.judge(challenger)
    assert decision["champion_ndcg_10"] == pytest.approx(registry.last_decision(registry.get("1"))["ndcg_10"], abs=2)
    assert decision["promoted"] is promoted and alias("champion") == ("2" if promoted else "1")
    assert read_json("reports/promotion.json")["champion_ndcg_10"] > 85
