"""What is refused before the first stage: folders, links and data sets that DVC cannot handle; and proxies."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from rabtriever.data import beir_io
from rabtriever.ops import dvc_stages, environment, pipeline_settings
from tests.toy import ROOT, dataset

READS_SOURCE = "deps: [raw.txt, '${prepare.source}']"


class Answer(http.server.BaseHTTPRequestHandler):
    """Says yes."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"yes")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine, in an environment whose proxy answers nobody."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "intra.example")
    monkeypatch.setenv("no_proxy", "")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_this_machine_is_reached_without_a_proxy(proxied: str) -> None:
    """P15: prevents two silent minutes of asking a proxy for our own server, by any client that we use."""
    with pytest.raises(OSError):
        urllib.request.urlopen(proxied, timeout=5)
    environment.bypass_proxy()
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "intra.example,127.0.0.1,localhost,::1"
    assert urllib.request.urlopen(proxied, timeout=5).read() == b"yes"
    assert httpx.get(proxied, timeout=5).text == requests.get(proxied, timeout=5).text == "yes"


@pytest.mark.parametrize("module", ["flows", "rabtriever.ops.tracking"])
def test_programs_and_their_children_bypass_the_proxy(proxied: str, module: str) -> None:
    """P15: prevents a flow or command that reaches a server here, and a child of it that does not."""
    ask = f"import urllib.request; print(urllib.request.urlopen({proxied!r}, timeout=5).read().decode())"
    program = f"import {module}, subprocess, sys; subprocess.run([sys.executable, '-c', {ask!r}], check=True)"
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root)
    assert done.stdout == "yes\n", done.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"NO_PROXY": "a"}, None),
        ({"HTTPS_PROXY": "http://p:1"}, "127.0.0.1,localhost,::1"),
        ({"all_proxy": "http://p:1", "no_proxy": "localhost, b"}, "localhost,b,127.0.0.1,::1"),
        ({"http_proxy": "http://p:1", "no_proxy": "*"}, "*"),
    ],
)
def test_what_the_environment_says_stays(given: dict[str, str], expected: str | None) -> None:
    """P15: prevents settings of a system that no_proxy would hide, and exceptions of the user's that are lost."""
    changed = dict(given)
    environment.bypass_proxy(changed)
    expectation = given if expected is None else {**given, "no_proxy": expected, "NO_PROXY": expected}
    assert changed == expectation


def write_data(folder: str) -> Path:
    """A sound data set in BEIR layout."""
    data, target = dataset(), Path(folder)
    (target / "qrels").mkdir(parents=True)
    beir_io.write_corpus(target / "corpus.jsonl", data.corpus)
    beir_io.write_queries(target / "queries.jsonl", data.queries)
    grades = list(data.qrels["test"].items())
    beir_io.write_qrels(target / "qrels/train.tsv", dict(grades[:20]))
    beir_io.write_qrels(target / "qrels/test.tsv", dict(grades[20:]))
    return target


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("data", "data contains data/prepared"),
        (".", "contains data/prepared"),
        ("..", "contains data/prepared"),
        ("data/prepared", "data/prepared is data/prepared"),
        ("data/prepared/part", "lies in data/prepared"),
        ("models", "contains models/retriever"),
        (".dvc/mine", "lies in .dvc"),
        (".cache", "is .cache"),
        ("link", "link contains data/prepared"),
    ],
)
def test_a_source_among_what_the_pipeline_writes_is_refused(project: Path, source: str, said: str) -> None:
    """O40: prevents a data set that DVC refuses from then on, or that a stage removes with its outputs."""
    if source not in (".", ".."):
        write_data("data" if source == "link" else source)
    Path("link").symlink_to("data")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ValueError, match=said):
        pipeline_settings.adopt_source(source)
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("deps: [raw.txt]", READS_SOURCE))
    Path("params.yaml").write_text(before.decode().replace("source: raw", f"source: {source}"))
    with pytest.raises(ValueError, match=said):
        pipeline_settings.adopt_source(None)
    assert not Path("dvc.lock").exists()


def test_links_below_a_source(project: Path) -> None:
    """P11: prevents judgements behind a link whose change no run would ever see."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("deps: [raw.txt]", READS_SOURCE))
    write_data("mine")
    Path("mine/qrels").rename("judged")
    Path("mine/qrels").symlink_to("../judged")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ValueError, match="mine/qrels is a link to a folder, which DVC does not follow"):
        pipeline_settings.adopt_source("mine")
    assert Path("params.yaml").read_bytes() == before

    Path("mine/qrels").unlink()
    Path("mine/qrels").mkdir()
    for name in ("train.tsv", "test.tsv"):
        Path("mine/qrels", name).symlink_to(f"../../judged/{name}")
    Path("current").symlink_to("mine")
    pipeline_settings.adopt_source("current")
    dvc_stages.run_stage("prepare", {})
    assert "prepare" not in dvc_stages.stale_stages()
    Path("judged/train.tsv").write_text(Path("judged/train.tsv").read_text() + "q00\td00\t1\n")
    assert "prepare" in dvc_stages.stale_stages(), "a change behind links to a file and to the source itself"


def test_what_dvc_cannot_read_below_a_source(tmp_path: Path) -> None:
    """P11: prevents DVC's own words, or a wait without end, for a broken link or a pipe."""
    source = write_data(str(tmp_path / "mine"))
    (source / "queries.old").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"queries\.old is a link to nowhere, which is not there"):
        environment.check_source(str(source), [])
    (source / "queries.old").unlink()
    os.mkfifo(source / "pipe")
    with pytest.raises(ValueError, match="pipe is not a file or folder"):
        environment.check_source(str(source), [])


@pytest.mark.parametrize(("folder", "target"), [("models", "/elsewhere"), ("data", "../elsewhere")])
def test_a_folder_of_outputs_on_another_disk_is_refused(project: Path, folder: str, target: str) -> None:
    """P12: prevents a stage that does all its work before DVC cannot file its outputs."""
    outside = project.parent / f"{project.name}-elsewhere"
    outside.mkdir()
    Path(folder).symlink_to(outside if target.startswith("/") else f"../{outside.name}")
    with pytest.raises(ValueError, match=rf"{folder} leads to {outside}.*dvc cache dir"):
        pipeline_settings.check_settings()


def test_other_folders_of_outputs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: prevents minutes of work before a stage finds that it cannot write; a link that stays inside is allowed."""
    Path("room").mkdir()
    Path("models").symlink_to("room")
    pipeline_settings.check_settings()
    Path("room").rmdir()
    with pytest.raises(FileExistsError, match="models is a link to room, which is not there"):
        pipeline_settings.check_settings()
    Path("models").unlink()
    Path("models").touch()
    with pytest.raises(FileExistsError, match="models is a file, expected a folder"):
        pipeline_settings.check_settings()
    Path("models").unlink()
    Path("reports").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, _: str(path) != "reports")
        with pytest.raises(PermissionError, match="the folder reports is not writable"):
            pipeline_settings.check_settings()
    Path(".cache").touch()
    with pytest.raises(FileExistsError, match=r"\.cache is a file"), dvc_stages.exclusive():
        pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('""', "prepare.source is '', expected a folder"),
        ('" "', "prepare.source is ' ', expected a folder"),
        ("null", "prepare.source is None, expected a string"),
        ("[a]", "prepare.source is .*, expected a string"),
        ("3", "prepare.source is 3, expected a string"),
        ("s3://bucket/mine", "prepare.source is s3://bucket/mine, an address"),
        ("${HOME}", r"the data set \$\{HOME\} is not there"),
        ("~/mine", "`~` is not expanded"),
        ("raw.txt", "raw.txt is a file"),
    ],
)
def test_a_source_that_dvc_cannot_take_is_told_in_our_words(project: Path, value: str, said: str) -> None:
    """O42: prevents "unexpected error" of DVC for a value of params.yaml that goes into dvc.yaml."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("deps: [raw.txt]", READS_SOURCE))
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("source: raw", f"source: {value}"))
    pipeline_settings.check_settings()
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        pipeline_settings.adopt_source(None)


def test_a_key_that_dvc_yaml_reads_must_be_there(project: Path) -> None:
    """O42: prevents DVC's words for a key that was renamed, and for a pipeline without stages."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("deps: [raw.txt]", "deps: ['${prepare.sauce}']"))
    with pytest.raises(ValueError, match=r"no key prepare\.sauce, did you mean 'prepare\.source'\?"):
        pipeline_settings.check_settings()
    Path("dvc.yaml").write_text("stages: nothing\n")
    with pytest.raises(ValueError, match=r"dvc\.yaml: stages is 'nothing', expected a mapping"):
        pipeline_settings.check_settings()


@pytest.mark.parametrize("name", ["it's ${mine} $HOME", " new\nline ", "-[1]*{x}#y: ü"])
def test_any_name_of_a_folder_works(project: Path, name: str) -> None:
    """O42: prevents a data set that only its name makes unusable."""
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("deps: [raw.txt]", READS_SOURCE))
    write_data(name)
    pipeline_settings.adopt_source(name)
    pipeline_settings.check_settings()
    dvc_stages.run_stage("prepare", {})
    assert "prepare" not in dvc_stages.stale_stages()
    with open(Path(name) / "corpus.jsonl", "a") as file:
        file.write(json.dumps({"_id": "new", "text": "new"}) + "\n")
    assert "prepare" in dvc_stages.stale_stages()


def test_a_run_works_without_git(project: Path) -> None:
    """O49: prevents "is not a git repository" for whoever unpacked a source archive, or copied no hidden files."""
    shutil.copy(ROOT / ".dvc/config", ".dvc/config")
    assert dvc_stages.stale_stages() == ["prepare", "index"]
    Path(".git").mkdir()
    assert dvc_stages.stale_stages() == ["prepare", "index"], "and with a damaged one"

    Path(".dvc/config").write_text(Path(".dvc/config").read_text().replace("no_scm = true", "no_scm = false"))
    with pytest.raises(dvc_stages.StageFailed, match=r"not a git repository.*\nput core\.no_scm = true back"):
        dvc_stages.stale_stages()

    Path(".dvc").rename("dvc")
    with pytest.raises(FileNotFoundError, match=r"no folder \.dvc here.*hidden files"):
        pipeline_settings.check_settings()
