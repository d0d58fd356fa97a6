"""Preparation of raw folders, and the stage's wiring."""

import contextlib
import dataclasses
import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows import common
from flows import prepare as stage
from rabtriever.core.artifacts import read_json, read_manifest
from rabtriever.core.settings import ParamsError
from rabtriever.data import beir_io, contract
from rabtriever.data.beir_io import DataContractError, Dataset, Document
from rabtriever.data.preparation import PrepareParams, check_folder, prepare_data, sampled, with_dev
from rabtriever.data.statistics import normalised

PARAMS = PrepareParams(source="raw", dev_fraction=0.2, max_test_queries=0, max_dev_queries=0)
SIZES = {"train": 40, "dev": 10, "test": 12}


def _write_raw(folder, splits=("train", "dev", "test")):
    beir_io.write_corpus(
        folder / "corpus.jsonl", {f"d{n}": Document(f"d{n}", "", f"document {n}") for n in range(9, -1, -1)}
    )
    queries, judged = {"unused": "nobody judged this"}, {}
    for split in splits:
        ids = [f"{split}-{n}" for n in range(SIZES[split])]
        queries |= {query_id: f"the need {query_id}" for query_id in ids}
        judged[split] = {query_id: {f"d{n % 10}": 1, f"d{(n + 1) % 10}": 0} for n, query_id in enumerate(ids)}
        beir_io.write_qrels(folder / "qrels" / f"{split}.tsv", judged[split])
    beir_io.write_queries(folder / "queries.jsonl", queries)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_raw(tmp_path / "raw")
    return tmp_path


def _prepare(params=PARAMS):
    return prepare_data(params, "data/prepared", "reports/data.json")


def test_prepared_folder_is_a_checked_data_set(here):
    """The stages after this one find another layout, another kind, or queries nobody judged."""
    report = _prepare()
    raw, prepared = beir_io.load_dataset("raw"), beir_io.load_dataset("data/prepared")
    assert prepared.corpus == raw.corpus and prepared.qrels == raw.qrels
    assert set(raw.queries) - set(prepared.queries) == {"unused"} and report["queries_without_judgement"] == 1
    manifest = read_manifest("data/prepared", "data")
    assert manifest.info["dataset_hash"] == prepared.hash == report["hash"]
    assert report == read_json("reports/data.json")
    assert report["source"] == "raw" and report["kept_queries"] == SIZES and report["dev_cut_from_train"] is False


def test_order_of_the_source_changes_nothing(here):
    """Lines in another order retrain everything."""
    _prepare()
    before = read_manifest("data/prepared", "data")
    for path in ("raw/corpus.jsonl", "raw/queries.jsonl"):
        lines = (here / path).read_text().splitlines(keepends=True)
        (here / path).write_text("".join(reversed(lines)))
    header, *lines = (here / "raw/qrels/train.tsv").read_text().splitlines(keepends=True)
    (here / "raw/qrels/train.tsv").write_text("".join([header, *reversed(lines)]))
    _prepare()
    assert read_manifest("data/prepared", "data") == before


def test_compressed_source_gives_the_same(here):
    """Packing the source makes other data."""
    before = _prepare()["hash"]
    for path in list((here / "raw").rglob("*.*")):
        with gzip.open(f"{path}.gz", "wb") as handle:
            handle.write(path.read_bytes())
        path.unlink()
    assert _prepare()["hash"] == before


def test_broken_source_leaves_the_prepared_data(here):
    """One wrong line in a new delivery costs the last good data."""
    _prepare()
    before = read_manifest("data/prepared", "data"), (here / "reports/data.json").read_bytes()
    with open("raw/qrels/test.tsv", "a") as handle:
        handle.write("test-0\tnowhere\t1\n")
    with pytest.raises(DataContractError, match="'nowhere'"):
        _prepare()
    with open("raw/corpus.jsonl", "a") as handle:
        handle.write("{")
    with pytest.raises(DataContractError, match="raw/corpus.jsonl:11: broken JSON"):
        _prepare()
    assert (read_manifest("data/prepared", "data"), (here / "reports/data.json").read_bytes()) == before


def test_a_fault_is_told_of_a_file_that_is_there(here):
    """A wrong id in qrels/train.tsv is told of a qrels/dev.tsv that the folder does not have."""
    (here / "raw/qrels/dev.tsv").unlink(missing_ok=True)
    path = here / "raw/qrels/train.tsv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"{line.split(chr(9))[0]}\tnowhere\t1" for line in lines[1:])]) + "\n")
    with pytest.raises(DataContractError, match="qrels/train.tsv: query .* document 'nowhere'") as raised:
        _prepare()
    assert "qrels/dev.tsv" not in str(raised.value).replace("without a qrels/dev.tsv", "")


def test_source_that_changes_meanwhile_is_refused(here, monkeypatch):
    """A folder refreshed while it is read passes for what the old data were made from, and is never read again."""
    check = contract.check_dataset

    def refreshed(dataset):
        with open("raw/queries.jsonl", "a") as file:
            file.write("\n")
        return check(dataset)

    monkeypatch.setattr(contract, "check_dataset", refreshed)
    with pytest.raises(DataContractError, match="raw changed while it was read; run again"):
        _prepare()
    assert not (here / "data/prepared").exists()


def test_missing_source_is_named(here):
    """A mistyped folder ends in a traceback."""
    with pytest.raises(FileNotFoundError, match="no folder elsewhere"):
        _prepare(dataclasses.replace(PARAMS, source="elsewhere"))


def test_dev_is_cut_from_train(here):
    """A set without dev cannot be used, or dev queries stay in train as well."""
    (here / "raw/qrels/dev.tsv").unlink()
    report = _prepare()
    prepared, train = beir_io.load_dataset("data/prepared"), beir_io.load_dataset("raw").qrels["train"]
    assert report["dev_cut_from_train"] and {**prepared.qrels["train"], **prepared.qrels["dev"]} == train
    assert 2 <= len(prepared.qrels["dev"]) <= 16 and len(prepared.qrels["test"]) == 12


def test_what_dev_does_not_need_stays_in_train(here):
    """Judgements that are paid for are neither trained on nor used otherwise."""
    (here / "raw/qrels/dev.tsv").unlink()
    all_of_it = _prepare()["kept_queries"]
    kept = _prepare(dataclasses.replace(PARAMS, max_dev_queries=2))["kept_queries"]
    assert all_of_it["dev"] > 2 and kept == {"train": SIZES["train"] - 2, "dev": 2, "test": SIZES["test"]}


def test_a_limited_dev_has_queries_that_count():
    """The few queries that are enough have nothing relevant, or the texts of train."""
    data = _train_only({f"q{n}": f"text {n // 2}" for n in range(400)})
    order = [query_id for query_id in with_dev(data, 0.5)[0].qrels["dev"]]
    for query_id in order[:40]:
        data.qrels["train"][query_id] = {"d": 0}
    cut = with_dev(data, 0.5, limit=7)[0]
    useful = [query_id for query_id, grades in cut.qrels["dev"].items() if grades["d"]]
    texts = ({cut.queries[query_id] for query_id in cut.qrels[split]} for split in ("train", "dev"))
    assert 7 <= len(useful) <= 8 and set.isdisjoint(*texts)


def _train_only(texts):
    qrels = {"train": {query_id: {"d": 1} for query_id in texts}, "test": {}}
    return Dataset({"d": Document("d", "", "x")}, texts, qrels)


TEXTS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=4), st.sampled_from(["x", "X!", "y", "z", "w"]), min_size=2
)


@settings(max_examples=100, deadline=None)
@given(texts=TEXTS, fraction=st.floats(0.01, 0.5), data=st.data())
def test_cut_is_disjoint_and_ignores_order(texts, fraction, data):
    """A text lands in train and dev, a split comes out empty, or the order of a file decides."""
    if len({normalised(text) for text in texts.values()}) < 2:
        with pytest.raises(DataContractError, match="two or more"):
            with_dev(_train_only(texts), fraction)
        return
    cut, was_cut = with_dev(_train_only(texts), fraction)
    train, dev = ({normalised(text) for text in cut.split_queries(split).values()} for split in ("train", "dev"))
    assert was_cut and train and dev and not train & dev
    shuffled = dict(data.draw(st.permutations(list(texts.items()))))
    assert with_dev(_train_only(shuffled), fraction)[0].qrels == cut.qrels


def test_cut_has_the_fraction_asked_for_and_is_stable():
    """The share is off, or queries wander between splits as data are added."""
    texts = {f"q{n}": f"text {n}" for n in range(4000)}
    dev = with_dev(_train_only(texts), 0.1)[0].qrels["dev"]
    assert 330 < len(dev) < 470  # four standard deviations around 400
    fewer = {query_id: texts[query_id] for query_id in list(texts)[:2000]}
    assert set(with_dev(_train_only(fewer), 0.1)[0].qrels["dev"]) == set(dev) & set(fewer)


def test_smaller_test_is_reported_and_stable(here):
    """A figure on a part of the test set passes for one on the whole, or is on another part each time."""
    report = _prepare(dataclasses.replace(PARAMS, max_test_queries=5, max_dev_queries=3))
    prepared = beir_io.load_dataset("data/prepared")
    assert report["kept_queries"] == {"train": 40, "dev": 3, "test": 5} and report["splits"]["test"]["queries"] == 12
    assert {split: len(qrels) for split, qrels in prepared.qrels.items()} == report["kept_queries"]
    assert len(prepared.queries) == 48
    larger = sampled(beir_io.load_dataset("raw"), {"test": 8})
    assert set(prepared.qrels["test"]) < set(larger.qrels["test"])


def test_a_smaller_dev_is_a_sample_of_the_cut():
    """The cut and the sample take the lowest numbers of one hash: the sample is the dev set of a smaller fraction."""
    cut = with_dev(_train_only({f"q{n}": f"text {n}" for n in range(2000)}), 0.4)[0]
    lowest = set(with_dev(_train_only({f"q{n}": f"text {n}" for n in range(2000)}), 0.2)[0].qrels["dev"])
    kept = set(sampled(cut, {"dev": 400}).qrels["dev"])
    assert len(kept) == 400 and kept < set(cut.qrels["dev"])
    assert 150 < len(kept & lowest) < 250, "about half of them, as by chance"


def test_smaller_test_keeps_queries_that_count():
    """The sample is of queries without a relevant document, and no metric can be computed."""
    qrels = {"test": {**{f"n{n}": {"d": 0} for n in range(50)}, "p": {"d": 1}}}
    dataset = Dataset({}, {query_id: "x" for query_id in qrels["test"]}, qrels)
    assert "p" in sampled(dataset, {"test": 2}).qrels["test"]


class _Recorder:
    def __init__(self):
        self.metrics, self.tags, self.artifacts = {}, {}, []

    def log_metrics(self, metrics):
        self.metrics |= metrics

    def set_tags(self, tags):
        self.tags |= tags

    def log_artifact(self, path):
        self.artifacts.append(str(path))


@pytest.fixture
def recorder(monkeypatch):
    recorder = _Recorder()
    monkeypatch.setattr(common, "stage_run", lambda *_: contextlib.nullcontext(recorder))
    return recorder


def _settings(**changes):
    values = {**dataclasses.asdict(PARAMS), **changes}
    return "prepare:\n" + "".join(f"  {name}: {value}\n" for name, value in values.items())


def test_stage_reads_its_section_and_reports(here, recorder, capsys):
    """The stage writes elsewhere than the stages after it read, or its run tells nothing."""
    (here / "params.yaml").write_text(_settings(max_test_queries=4))
    report = stage.prepare.fn()
    assert read_json("reports/data.json") == report and read_manifest("data/prepared", "data")
    assert recorder.metrics == {"documents": 10, "train_queries": 40, "dev_queries": 10, "test_queries": 4}
    assert recorder.tags == {"data_hash": report["hash"]} and recorder.artifacts == ["reports/data.json"]
    assert "4 test queries" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"dev_fraction": 0}, "more than 0"), ({"max_test_queries": -1}, "at least 0"), ({"sorce": "x"}, "'source'")],
)
def test_stage_refuses_wrong_settings(here, recorder, changes, words):
    """A negative limit cuts the last query off, a misspelt key is ignored."""
    (here / "params.yaml").write_text(_settings(**changes))
    with pytest.raises(ParamsError, match=words):
        stage.prepare.fn()
    assert not (here / "data").exists()


def test_the_stage_tells_what_is_ignored(here, recorder, capsys):
    """P06: queries that are documents change every figure without a word, or the notice is repeated."""
    corpus = {"train-1": Document("train-1", "", "the need"), "test-2": Document("test-2", "", "a need")}
    beir_io.write_corpus(here / "raw/corpus.jsonl", {**beir_io.read_corpus(here / "raw/corpus.jsonl"), **corpus})
    (here / "params.yaml").write_text(_settings())
    report = stage.prepare.fn()
    assert [report["splits"][split]["queries_with_own_document"] for split in beir_io.SPLITS] == [1, 0, 1]
    assert capsys.readouterr().out.count("prepare: 2 queries have the id of a document, which is ignored") == 1


def test_data_docs_on_request(here, capsys):
    """The pages are built by each run, or change the data."""
    (here / "params.yaml").write_text(_settings())
    stage.data_docs.fn()
    assert (here / "reports/data_docs/index.html").is_file() and not (here / "data").exists()
    assert "reports/data_docs/index.html" in capsys.readouterr().out


@pytest.mark.parametrize("has_dev", [True, False])
def test_a_folder_is_checked_without_writing(here, has_dev):
    """Asking whether a folder will do changes files, or says less than the stage that will read the folder."""
    if not has_dev:
        (here / "raw/qrels/dev.tsv").unlink()
    before = sorted(here.rglob("*"))
    report = check_folder(here / "raw", dev_fraction=0.2)
    assert sorted(here.rglob("*")) == before
    assert report.pop("hash") == beir_io.load_dataset("raw").hash
    assert report.items() <= _prepare().items() and report["dev_cut_from_train"] is not has_dev


def test_a_broken_folder_is_told_as_the_stage_tells_it(here):
    """A folder passes the check and is refused by the run that follows."""
    with open("raw/qrels/test.tsv", "a") as handle:
        handle.write("test-0\tnowhere\t1\n")
    with pytest.raises(DataContractError, match="document 'nowhere'"):
        check_folder("raw")
    with pytest.raises(FileNotFoundError, match="there is no folder elsewhere"):
        check_folder("elsewhere")
