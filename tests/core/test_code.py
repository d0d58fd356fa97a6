"""The identity of code: what leaves it as it is, what changes it, and which stages an edit makes stale."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rabtriever.core import code
from rabtriever.core.artifacts import ArtifactMismatchError
from rabtriever.ops import dvc_stages

SOURCE = '''
"""Of note."""

RATE = 0.1


def halve(value: float, text: str = "#") -> str:
    """Returns a half."""
    return f"{value / 2:>{len(text)}.2f}{text}"


class Told(Exception):
    """Told."""
'''
SAME = {
    "comment": ("RATE = 0.1", "RATE = 0.1  # of learning"),
    "docstring": ('"""Returns a half."""', '"""Returns one of two."""'),
    "no docstring": ('    """Returns a half."""\n', ""),
    "blank line": ("RATE = 0.1\n", "\n\nRATE = 0.1   \n"),
    "layout": ("value: float, text", "value: float,\n    text"),
}
OTHER = {
    "constant": ("RATE = 0.1", "RATE = 0.2"),
    "text": ('text: str = "#"', 'text: str = "#a"'),
    "format": (":>{len(text)}.2f}", ":<{len(text)}.2f}"),
    "name": ("class Told", "class Tell"),
}


def meaning(folder: Path, source: str) -> str:
    (folder / "file.py").write_text(source)
    return code.meaning(folder / "file.py")


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_what_means_the_same(tmp_path: Path, old: str, new: str) -> None:
    """S09: prevents a retraining because of a comment."""
    assert old in SOURCE and meaning(tmp_path, SOURCE.replace(old, new)) == meaning(tmp_path, SOURCE)


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER)
def test_what_means_something_else(tmp_path: Path, old: str, new: str) -> None:
    """S09: prevents results of the code before an edit that matters."""
    assert old in SOURCE and meaning(tmp_path, SOURCE.replace(old, new)) != meaning(tmp_path, SOURCE)


def test_every_python_reads_the_same(tmp_path: Path) -> None:
    """S09: prevents a retraining because of another release of Python; this value is that of 3.11, 3.12 and 3.13."""
    assert meaning(tmp_path, SOURCE).startswith("b3721e665b3d3794e687ac08")


TOY = "import sys\nopen(sys.argv[1], 'w').write('done')\n"
PIPELINE = {
    code.STAGE: {
        "cmd": "python -m rabtriever.core.code",
        "always_changed": True,
        "outs": [{".cache/code": {"cache": False}}],
    },
    "first": {"cmd": "python do.py a", "deps": [".cache/code/rabtriever/data.txt"], "outs": ["a"]},
    "second": {"cmd": "python do.py b", "deps": ["a", ".cache/code/rabtriever/search.txt"], "outs": ["b"]},
    "third": {
        "cmd": "python do.py c",
        "deps": [".cache/code/flows/third.txt", ".cache/code/rabtriever/core.txt"],
        "outs": ["c"],
    },
    "last": {"cmd": "python do.py d", "deps": ["b", ".cache/code/rabtriever.txt"], "outs": ["d"]},
}


def small_package(folder: Path) -> Path:
    """A package that has the module at its place, rooms, a file that is not Python, and flows beside it."""
    package = folder / "rabtriever"
    for room in ("core", "data", "search"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
        (package / room / "module.py").write_text(SOURCE)
    (package / "__init__.py").touch()
    (package / "data/page.html").write_text("<p>")
    for name in ("artifacts.py", "code.py"):
        shutil.copy(Path(code.__file__).with_name(name), package / "core")
    (folder / "flows").mkdir()
    (folder / "flows/third.py").write_text("def third(): ...\n")
    return package


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package that counts, in the working folder."""
    made = small_package(tmp_path)
    monkeypatch.setattr(code, "_PACKAGE", made)
    monkeypatch.chdir(tmp_path)
    return made


def ran(*arguments: str) -> list[str]:
    """What DVC, called by hand, ran."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PYTHONPATH": ".", "PATH": path}
    command = [sys.executable, "-m", "dvc", *arguments]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return re.findall(r"^> python do\.py (\w)$", printed, re.MULTILINE)


def test_an_edit_makes_the_right_stages_stale(package: Path) -> None:
    """S09: prevents a retraining because of a comment, and a stage that misses an edit; also by plain `dvc repro`."""
    Path("do.py").write_text(TOY)
    Path("dvc.yaml").write_text(json.dumps({"stages": PIPELINE}))
    Path(".dvc").mkdir()
    Path(".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n")
    assert ran("repro") == ["a", "b", "c", "d"]

    module = package / "search/module.py"
    edited = SOURCE
    for name in ("comment", "docstring", "blank line"):
        edited = edited.replace(*SAME[name])
    module.write_text(edited)
    assert dvc_stages.stale_stages() == [], "and the stage `code` itself never counts"
    assert ran("repro") == []

    module.write_text(edited.replace("0.1", "0.2"))
    assert dvc_stages.stale_stages() == ["second", "last"]
    assert ran("repro") == ["b", "d"]

    Path("flows/third.py").write_text("def third(): return 1\n")
    assert dvc_stages.stale_stages() == ["third"]
    (package / "data/page.html").write_text("<p><!-- a comment of another language -->")
    assert set(dvc_stages.stale_stages()) == {"first", "second", "third", "last"}


def test_code_that_is_not_python_stops_with_a_sentence(package: Path) -> None:
    """S09: prevents a traceback, and a stale identity that passes for the present one."""
    (package / "search/module.py").write_text("this is (not Python\n")
    with pytest.raises(ArtifactMismatchError, match=r"search/module\.py is not Python"):
        code.write_identities()
    command = [sys.executable, "-m", "rabtriever.core.code"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True)
    assert done.returncode == 1 and "code: " in done.stderr and "Traceback" not in done.stderr


def test_what_is_remembered_of_files_never_passes_for_other_code(package: Path) -> None:
    """S09: prevents an identity of what was there before, or an end because somebody damaged that file."""
    first = code.identities()
    assert code.identities() == first
    module = package / "search/module.py"
    module.write_text(SOURCE.replace("0.1", "0.2"))
    found = code.identities()
    changed = {name for name in first if first[name] != found[name]}
    assert changed == {"rabtriever", "rabtriever/search"}
    for text in ("no JSON", "[1]", "7"):
        code._KNOWN.write_text(text)
        assert code.identities() == found


def test_what_running_the_code_leaves_is_no_code(package: Path) -> None:
    """S09: prevents a first run of a fresh clone from ending in `evaluate`, where numba keeps what it has compiled."""
    before, cache = code.identities(), package / "search/__pycache__"
    cache.mkdir()
    for name in ("module._scan-22.py311.nbi", "module._scan-22.py311.1.nbc", "module.cpython-311.pyc.140234"):
        (cache / name).write_bytes(b"compiled")
    assert code.identities() == before


def test_the_command_imports_nothing_heavy() -> None:
    """S09: prevents seconds at the beginning of each run."""
    program = "import sys, rabtriever.core.code; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    assert set(loaded) - sys.stdlib_module_names - {"rabtriever", "__main__"} <= installed_hooks()


def installed_hooks() -> set[str]:
    """What Python loads in any case, such as the finders of editable installs."""
    program = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    return set(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.split())
