"""Atomic writes, content hashes, manifests."""

import errno
import json
import os
import resource
import signal
from pathlib import Path

import pytest

from rabtriever.core import artifacts
from rabtriever.core.artifacts import ArtifactMismatchError, atomic_folder, atomic_write


def _in_child(action):
    """Exit status of `action` run in a forked process; negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill():
    os.kill(os.getpid(), signal.SIGKILL)


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


def _write_folder(path, text):
    with atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a.txt").write_text(text)


def _text(path):
    return (path / "sub" / "a.txt").read_text()


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    """A temporary file stays beside each output."""
    path = tmp_path / "new" / "a.txt"
    for text in ("one\n", "two é\n"):
        with atomic_write(path) as handle:
            handle.write(text)
    with atomic_write(tmp_path / "new" / "b.bin", "wb") as handle:
        handle.write(b"\x00\r\n")
    assert path.read_bytes() == "two é\n".encode() and _names(tmp_path / "new") == ["a.txt", "b.bin"]


def test_write_refuses_other_modes(tmp_path):
    """Appending would start from an empty file and lose what was there."""
    with pytest.raises(ValueError, match="'a'"), atomic_write(tmp_path / "x", "a"):
        pass


def test_failed_write_leaves_the_old_file(tmp_path):
    """A full disk leaves half a file in place of a good one."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def outgrow():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel refuses the write, as on a full disk
        with atomic_write(path) as handle:
            handle.write("new" * 100_000)

    assert _in_child(outgrow) == 1
    assert path.read_text() == "old" and _names(tmp_path) == ["a.txt"]


def test_killed_write_leaves_the_old_file_and_is_cleaned_up(tmp_path):
    """A killed run leaves half a file, or litter that stays for ever."""
    path = tmp_path / "a.txt"
    path.write_text("old")

    def die():
        with atomic_write(path) as handle:
            handle.write("new")
            handle.flush()
            _kill()

    assert _in_child(die) == -signal.SIGKILL
    assert path.read_text() == "old" and len(_names(tmp_path)) == 2
    with atomic_write(path) as handle:
        handle.write("newer")
    assert path.read_text() == "newer" and _names(tmp_path) == ["a.txt"]


def test_folder_is_replaced_as_a_whole(tmp_path):
    """Files of the folder before stay among the new ones."""
    _write_folder(tmp_path / "out", "one")
    (tmp_path / "out" / "stray.txt").write_text("x")
    _write_folder(tmp_path / "out", "two")
    assert _text(tmp_path / "out") == "two" and _names(tmp_path / "out") == ["sub"] and _names(tmp_path) == ["out"]


def test_failed_folder_leaves_the_old_one(tmp_path):
    """A full disk costs the last good artefact."""
    _write_folder(tmp_path / "out", "old")
    with pytest.raises(OSError, match="No space"), atomic_folder(tmp_path / "out") as temporary:
        (temporary / "a").write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert _text(tmp_path / "out") == "old" and _names(tmp_path) == ["out"]


def test_failed_swap_puts_the_old_folder_back(tmp_path, monkeypatch):
    """An error at the very last step leaves neither folder."""
    _write_folder(tmp_path / "out", "old")
    rename = Path.rename

    def failing(self, target):
        if ".tmp-" in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        _write_folder(tmp_path / "out", "new")
    assert _text(tmp_path / "out") == "old" and _names(tmp_path) == ["out"]


def _write_artifact(path, text):
    with atomic_folder(path) as temporary:
        (temporary / "a.txt").write_text(text)
        artifacts.write_manifest(temporary, "toy", {}, {"text": text})


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_kill_at_any_moment_leaves_a_whole_folder(tmp_path, renames):
    """A kill between moving the old folder away and the new one in leaves none, and the reader finds nothing."""
    path = tmp_path / "out"
    _write_artifact(path, "old")
    rename = Path.rename

    def die():
        def counting(self, target):
            if counting.left == 0:
                _kill()
            counting.left -= 1
            rename(self, target)
            if counting.left == 0:
                _kill()

        counting.left = renames
        Path.rename = counting
        _write_artifact(path, "new")

    assert _in_child(die) == -signal.SIGKILL
    assert artifacts.read_manifest(path, "toy").info["text"] == ("new" if renames == 2 else "old")
    _write_artifact(path, "newer")
    assert (path / "a.txt").read_text() == "newer" and _names(tmp_path) == ["out"]


def test_reader_meets_a_writer_between_its_two_renames(tmp_path, monkeypatch):
    """Prevents a reader that takes a running writer for a killed one from making it fail."""
    path, rename, seen = tmp_path / "out", Path.rename, []
    _write_artifact(path, "old")

    def read_after(self, target):
        rename(self, target)
        if self == path and not seen:
            seen.append("in between")  # first: reading renames as well
            seen.append(artifacts.read_manifest(path, "toy").info["text"])

    monkeypatch.setattr(Path, "rename", read_after)
    _write_artifact(path, "new")
    assert seen == ["in between", "old"] and _names(tmp_path) == ["out"]
    assert artifacts.read_manifest(path, "toy").info["text"] == "new"


def test_writer_ends_while_a_reader_puts_back(tmp_path, monkeypatch):
    """Prevents a reader from failing where the folder that it misses has come in the meantime."""
    path, rename = tmp_path / "out", Path.rename
    _write_artifact(path, "old")
    rename(path, tmp_path / ".out.old")

    def too_late(self, target):
        monkeypatch.setattr(Path, "rename", rename)
        _write_artifact(path, "new")
        rename(self, target)

    monkeypatch.setattr(Path, "rename", too_late)
    assert artifacts.read_manifest(path, "toy").info["text"] == "new"


def test_running_writers_folder_is_left_alone(tmp_path):
    """Cleaning up takes away what another process is writing."""
    other = tmp_path / f".out.tmp-{os.getppid()}-0"
    other.mkdir()
    _write_folder(tmp_path / "out", "x")
    assert other.is_dir()


def test_nested_writers_of_one_folder_do_not_meet(tmp_path):
    """Two threads writing the same artefact share a temporary folder."""
    with atomic_folder(tmp_path / "out") as one, atomic_folder(tmp_path / "out") as two:
        assert one != two and one.is_dir() and two.is_dir()


def test_folder_refuses_a_file(tmp_path):
    """A file in the way is moved aside and deleted as if it were an old artefact."""
    (tmp_path / "out").write_text("precious")
    with pytest.raises(NotADirectoryError, match="is a file"):
        _write_folder(tmp_path / "out", "x")
    assert (tmp_path / "out").read_text() == "precious"


def test_json_round_trip_and_refusals(tmp_path):
    """NaN becomes JSON that other readers refuse; a cut file ends in a bare decoding error."""
    artifacts.write_json(tmp_path / "x.json", {"b": 1.5, "a": ["é", None]})
    assert artifacts.read_json(tmp_path / "x.json") == {"b": 1.5, "a": ["é", None]}
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert artifacts.read_json(tmp_path / "x.json")["b"] == 1.5
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ArtifactMismatchError, match="x.json is not JSON"):
        artifacts.read_json(tmp_path / "x.json")
    with pytest.raises(FileNotFoundError, match="no file .*y.json"):
        artifacts.read_json(tmp_path / "y.json")


def test_content_hash_is_that_of_names_and_bytes(tmp_path):
    """Two artefacts count as one because a file was renamed, or as two because of their place."""
    for place in ("one", "deep/two"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a").write_text("x")
    first = artifacts.content_hash(tmp_path / "one")
    assert first == artifacts.content_hash(tmp_path / "deep" / "two")
    (tmp_path / "one" / ".hidden").write_text("x")
    (tmp_path / "one" / "manifest.json").write_text("{}")
    assert artifacts.content_hash(tmp_path / "one") == first
    (tmp_path / "one" / "a").rename(tmp_path / "one" / "b")
    assert artifacts.content_hash(tmp_path / "one") != first
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256 of nothing, FIPS 180-4
    (tmp_path / "empty").touch()
    assert artifacts.content_hash(tmp_path / "empty") == empty
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        artifacts.content_hash(tmp_path / "nowhere")


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    with atomic_folder(folder) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "weights.bin").write_bytes(b"12345678")
        (temporary / "ids.txt").write_text("a b")
        artifacts.write_manifest(temporary, "teacher", {"data": "aaa"}, {"width": 4})
    return folder


def test_manifest_round_trip(artifact):
    """What an artefact was made from is lost on the way."""
    manifest = artifacts.read_manifest(artifact, "teacher")
    assert (manifest.kind, manifest.parents, manifest.info) == ("teacher", {"data": "aaa"}, {"width": 4})
    assert sorted(manifest.files) == ["ids.txt", "sub/weights.bin"] and manifest.files["ids.txt"]["bytes"] == 3
    assert manifest.hash == artifacts.content_hash(artifact)


def _bytes(folder):
    return (folder / "manifest.json").read_bytes()


def test_manifest_is_the_same_for_equal_runs(artifact):
    """A time or a path in the manifest makes every later stage run again."""
    before = _bytes(artifact)
    again = artifacts.write_manifest(artifact, "teacher", {"data": "aaa"}, {"width": 4})
    assert _bytes(artifact) == before and again == artifacts.read_manifest(artifact, "teacher")
    parents = {"data": "aaa", "backbone": "bbb"}, {"backbone": "bbb", "data": "aaa"}
    written = [artifacts.write_manifest(artifact, "teacher", order, {}) and _bytes(artifact) for order in parents]
    assert written[0] == written[1]


def _change_manifest(folder, **parts):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def _rename_in_manifest(folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace(artifacts.content_hash(folder), "0" * 64))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "sub" / "weights.bin").write_bytes(b"12345679"), "weights.bin has sha256"),
        (lambda folder: (folder / "sub" / "weights.bin").write_bytes(b"1234567"), "has 7 bytes, expected 8"),
        (lambda folder: (folder / "ids.txt").unlink(), "ids.txt is missing"),
        (lambda folder: (folder / "more.txt").write_text("x"), "more.txt is not listed"),
        (_rename_in_manifest, "its manifest says 0000"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "not a manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not a manifest"),
        (lambda folder: _change_manifest(folder, files=None), "files is None"),
        (lambda folder: _change_manifest(folder, files={"ids.txt": {"sha256": "0"}}), "bytes"),
    ],
)
def test_damaged_artifact_is_refused(artifact, damage, words):
    """A flipped byte or a missing shard gives wrong scores instead of an error."""
    damage(artifact)
    with pytest.raises(ArtifactMismatchError, match=words):
        artifacts.read_manifest(artifact, "teacher")


def test_verification_can_be_left_out(artifact):
    """A manifest cannot be looked at without hashing gigabytes."""
    (artifact / "ids.txt").unlink()
    assert artifacts.read_manifest(artifact, "teacher", verify=False).kind == "teacher"


def test_other_kind_is_refused(artifact):
    """The student's folder is loaded as the teacher's."""
    with pytest.raises(ArtifactMismatchError, match="is a 'teacher' artefact, expected 'student'"):
        artifacts.read_manifest(artifact, "student")


def test_missing_artifact_is_named(tmp_path):
    """A stage that did not run is told as a missing JSON file."""
    with pytest.raises(FileNotFoundError, match="out does not exist; expected a 'teacher' artefact"):
        artifacts.read_manifest(tmp_path / "out", "teacher")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match="out has no manifest.json"):
        artifacts.read_manifest(tmp_path / "out", "teacher")


def test_parents_are_compared(artifact):
    """A student is searched with the documents of another teacher."""
    manifest = artifacts.read_manifest(artifact, "teacher")
    artifacts.check_parent(manifest, "data", "aaa")
    with pytest.raises(ArtifactMismatchError, match="made from data aaa, but data here is bbb"):
        artifacts.check_parent(manifest, "data", "bbb")
    with pytest.raises(ArtifactMismatchError, match="names no parent 'backbone'"):
        artifacts.check_parent(manifest, "backbone", "bbb")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """After a power cut there is an empty file in place of the old one."""
    done, replace = [], os.replace
    monkeypatch.setattr(os, "fsync", lambda number: done.append(os.fstat(number).st_size))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("named"), replace(*paths)))
    with atomic_write(tmp_path / "a.txt") as handle:
        handle.write("text")
    assert done == [4, "named"]
