"""Getting the sets of the study: what is copied, what is reported, and the page that lists them."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import pytest

from rabtriever.data import beir_io
from rabtriever.data.beir_io import Document, load_dataset
from research import get_data

ROOT = Path(__file__).resolve().parents[2]


def _write_set(folder: Path, text: str = "document") -> Path:
    beir_io.write_corpus(folder / "corpus.jsonl", {f"d{n}": Document(f"d{n}", "", f"{text} {n}") for n in range(3)})
    beir_io.write_queries(folder / "queries.jsonl", {f"q{n}": f"need {n}" for n in range(3)})
    for number, split in enumerate(beir_io.SPLITS):
        beir_io.write_qrels(folder / f"qrels/{split}.tsv", {f"q{number}": {"d0": 1}})
    (folder / "README.md").write_text("licence: MIT\n")
    (folder / "notes.txt").write_text("of no concern\n")
    return folder


@pytest.fixture
def one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """A list of two sets that a study uses, of which `toy` is in tmp_path/from, and one that none uses."""
    found = load_dataset(_write_set(tmp_path / "from/toy")).hash
    toy = {"name": "toy", "licence": "MIT", "url": "https://example.org/toy", "hash": found}
    absent = {"name": "absent", "licence": "CC BY 4.0", "url": "https://example.org/absent", "hash": ""}
    monkeypatch.setattr(get_data, "known_sets", lambda: {"toy": toy, "absent": absent, "spare": absent})
    monkeypatch.setattr(get_data, "used_sets", lambda: {"toy", "absent"})
    return toy


def _bytes(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_ino) for path in files}


def _get(tmp_path: Path, *arguments: str) -> int:
    return get_data.main([str(tmp_path / "from"), "--target", str(tmp_path / "sets"), *arguments])


def test_a_set_is_copied_with_its_licence(one, tmp_path, capsys):
    """A copy lacks files, or loses the README that says what may be done with the data."""
    assert _get(tmp_path, "--only", "toy") == 0
    copy, source = tmp_path / "sets/toy", tmp_path / "from/toy"
    assert load_dataset(copy).hash == load_dataset(source).hash
    assert (copy / "README.md").is_file() and not (copy / "notes.txt").exists()
    assert "toy             copied     MIT; 3 documents, 3 queries\n" in capsys.readouterr().out


def test_a_missing_set_is_reported_and_fails(one, tmp_path, capsys):
    """A set is left out in silence, and the study runs on fewer sets than its reader thinks."""
    assert _get(tmp_path) == 1
    out = capsys.readouterr().out
    assert "absent          missing    CC BY 4.0; from https://example.org/absent" in out
    assert "1 of 2 sets asked for are ready; not ready: absent, see docs/datasets.md" in out


def test_a_second_run_changes_nothing(one, tmp_path, capsys):
    """Every run writes the sets again, and whatever depends on their files is stale."""
    _get(tmp_path)
    before = _bytes(tmp_path / "sets")
    assert _get(tmp_path, "--only", "toy") == 0
    assert _bytes(tmp_path / "sets") == before and "toy             unchanged" in capsys.readouterr().out


def test_a_changed_set_is_copied_again_and_told_apart(one, tmp_path, capsys):
    """A newer delivery is ignored, or passes for the data that the committed figures were measured on."""
    _get(tmp_path)
    _write_set(tmp_path / "from/toy", text="another document")
    assert _get(tmp_path, "--only", "toy") == 0
    assert f"than were measured ({one['hash']})" in capsys.readouterr().out
    assert load_dataset(tmp_path / "sets/toy").hash == load_dataset(tmp_path / "from/toy").hash


def test_a_broken_set_is_refused_with_its_reason(one, tmp_path, capsys):
    """Data that break the contract reach the study, or the last good copy is lost."""
    _get(tmp_path)
    before = _bytes(tmp_path / "sets")
    with open(tmp_path / "from/toy/qrels/test.tsv", "a") as handle:
        handle.write("q2\tnowhere\t1\n")
    assert _get(tmp_path, "--only", "toy") == 1
    out = capsys.readouterr().out
    assert "toy             refused" in out and "document 'nowhere'" in out and "earlier copy" in out
    assert _bytes(tmp_path / "sets") == before


def test_a_set_that_changes_meanwhile_is_refused(one, tmp_path, monkeypatch, capsys):
    """A half-written delivery is copied although other bytes were checked."""
    copyfile = shutil.copyfile

    def changed(source, target):
        copyfile(source, target)
        with open(target, "a") as handle:
            handle.write("\n")

    monkeypatch.setattr(shutil, "copyfile", changed)
    assert _get(tmp_path, "--only", "toy") == 1
    assert "changed while it was copied" in capsys.readouterr().out and not (tmp_path / "sets/toy").exists()


def test_a_full_disk_is_told(one, tmp_path, monkeypatch, capsys):
    """The run ends in a traceback, or goes on as if the set were there."""

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    assert _get(tmp_path, "--only", "toy") == 1 and not (tmp_path / "sets/toy").exists()
    assert "a set could not be copied: [Errno 28] No space left" in capsys.readouterr().err


def test_compressed_sets_are_taken_as_they_are(one, tmp_path):
    """A folder with .gz files counts as empty."""
    for path in [path for path in (tmp_path / "from/toy").rglob("*") if path.suffix in (".jsonl", ".tsv")]:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert _get(tmp_path, "--only", "toy") == 0
    assert load_dataset(tmp_path / "sets/toy").hash == one["hash"]


def test_without_a_folder_the_copies_are_reported(one, tmp_path, capsys):
    """A user cannot see what is there, or a damaged copy is called ready."""
    _get(tmp_path)
    assert get_data.main(["", "--target", str(tmp_path / "sets"), "--only", "toy"]) == 0  # `make data` without FROM
    assert "toy             kept" in capsys.readouterr().out
    (tmp_path / "sets/toy/corpus.jsonl").write_text("{")
    assert get_data.main(["--target", str(tmp_path / "sets"), "--only", "toy"]) == 1
    assert "the copy is damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nowhere"], "there is no folder nowhere"), (["--only", "alfredd"], "there is no set alfredd")],
)
def test_wrong_usage_is_told(arguments, message, capsys, tmp_path, monkeypatch):
    """A mistyped folder or set passes for one without data."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        get_data.main(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_the_page_lists_every_set():
    """A set is measured whose licence and origin nobody can look up, or the page calls an unused one used."""
    page, used = (ROOT / "docs/datasets.md").read_text(encoding="utf-8"), get_data.used_sets()
    assert {"alfred", "tldr", "apibench"} <= used <= set(get_data.known_sets())
    for name, one in get_data.known_sets().items():
        row = next(line for line in page.splitlines() if re.match(rf"\| \*{{0,2}}{name}\*{{0,2}} \|", line))
        assert row.startswith(f"| **{name}** |") == (name in used), name
        assert row.endswith(f"| {one['licence']} |") and page.count(f"]({one['url']})") == 1, name
        assert re.fullmatch("[0-9a-f]{16}", one["hash"]), name
