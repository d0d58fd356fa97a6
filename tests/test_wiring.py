"""The repository agrees with itself: import rules, stage dependencies, settings, README."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
import sys
from pathlib import Path

import pytest
import yaml

from rabtriever.core import code
from tests.closure import ROOT, closure

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CODE = PIPELINE.pop(code.STAGE)
SCRIPTS = {name: stage.get("do", stage)["cmd"].split()[2].replace(".", "/") + ".py" for name, stage in PIPELINE.items()}

ONLY_IN = {
    "mlflow": {"ops/tracking", "ops/registry", "ops/packaging", "ops/answering", "ops/pyfunc"},
    "great_expectations": {"data/contract"},
    "faiss": {"search/shortlist", "search/retriever_io"},
    "lightning": {"training/trainer", "ops/tracking"},
    "prefect": {"ops/prefect_server", "ops/retries"},
    "dvc": {"ops/dvc_stages"},
}


def modules() -> list[Path]:
    return [path for path in sorted((ROOT / "src/rabtriever").rglob("*.py")) if path.stem != "__init__"]


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: "/".join(path.parts[-2:]))
def test_each_heavy_library_stays_behind_its_module(path: Path):
    """Mathematics that knows MLflow, Prefect or DVC cannot be tested or reused without them."""
    name = path.relative_to(ROOT / "src/rabtriever").with_suffix("").as_posix()
    for package in imported_packages(path) & set(ONLY_IN):
        assert name in ONLY_IN[package], f"{name} imports {package}"


def stage(name: str) -> dict:
    return PIPELINE[name].get("do", PIPELINE[name])


@pytest.mark.parametrize("name", PIPELINE)
def test_a_stage_depends_on_all_code_it_imports(name: str):
    """A missing folder makes `dvc repro` serve stale results; one too many re-runs hours of training for nothing."""
    assert not [dep for dep in stage(name)["deps"] if dep.startswith(("src/", "flows/"))], "bytes, not meaning"
    files = {dep for dep in stage(name)["deps"] if dep.startswith(f"{code.FOLDER}/")}
    listed = {part for part in code.identities() if str(code.file_of(part)) in files}
    assert {str(code.file_of(part)) for part in listed} == files, "a file that is never written"
    holding = {file: [part for part in listed if holds(part, file)] for file in closure(SCRIPTS[name])}
    assert not [file for file, parts in holding.items() if not parts]
    assert {part for parts in holding.values() for part in parts} == listed, "a dep that holds nothing it imports"


def holds(part: str, file: str) -> bool:
    """Whether a name that `code.identities` knows covers a file of the repository."""
    path = Path(f"{part}.py" if part.startswith("flows/") else f"src/{part}")
    return path == Path(file) or path in Path(file).parents


def test_the_code_is_read_before_any_other_stage():
    """Without it, plain `dvc repro` compares with what the code meant when somebody last looked."""
    assert CODE["cmd"] == "python -m rabtriever.core.code" and CODE["always_changed"]
    assert CODE["outs"] == [{str(code.FOLDER): {"cache": False}}]


def test_the_pipeline_lists_folders():
    """Two hundred lines of modules are wrong at the next edit."""
    lines = (ROOT / "dvc.yaml").read_text().splitlines()
    assert len([line for line in lines if line.strip().startswith(f"- {code.FOLDER}/")]) <= 60


@pytest.mark.parametrize("name", [name for name in PIPELINE if name != "register"])
def test_a_stage_names_every_section_it_reads(name: str):
    """A section read but not listed can change without the stage running again."""
    (line,) = re.findall(r"^from (\S+) import (\w+)(?: as stage)?$", (ROOT / SCRIPTS[name]).read_text(), re.MULTILINE)[
        -1:
    ]
    sections = importlib.import_module(".".join(line)).Sections._fields
    assert set(sections) == set(stage(name).get("params", []))


def test_every_section_loads_and_is_read_by_something():
    """A section nobody reads is a knob without effect; one that does not load stops the first run."""
    from rabtriever.ops.sections import SECTIONS, check_values

    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(sections) == set(SECTIONS)
    check_values(ROOT / "params.yaml")


def test_a_version_asks_for_what_serving_imports(monkeypatch: pytest.MonkeyPatch):
    """A server that builds its environment from a version's list ends in an ImportError; one too many takes minutes."""
    from rabtriever.ops.packaging import RUNTIME

    monkeypatch.setattr("tests.closure.HARMLESS", set())
    packages = {"faiss": "faiss-cpu", "ruamel": "ruamel.yaml"}
    files = closure("src/rabtriever/ops/pyfunc.py") - {"src/rabtriever/lm/gguf.py"}  # a version's model is a folder
    found = set().union(*(imported_packages(ROOT / name) for name in files))
    found -= {*sys.stdlib_module_names, "rabtriever"}
    assert {packages.get(name, name) for name in found} == set(RUNTIME)


def test_a_version_is_told_by_all_the_code_that_it_answers_with():
    """A change of the scan that makes no new version is served by nobody."""
    from rabtriever.ops.packaging import SERVED

    rooms = {f"src/rabtriever/{part}" for part in SERVED}
    for file in closure("src/rabtriever/ops/pyfunc.py"):
        assert any(file == room or file.startswith(room + "/") for room in rooms), file


def test_readme_commands_exist():
    """A renamed target or flow leaves the newcomer with a command that fails."""
    found = [ROOT / "README.md", ROOT / "research/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    pages = "\n".join(page.read_text() for page in found)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", pages, re.MULTILINE)) <= targets
    modules = re.findall(r"python -m ((?:flows|research)\.\w+)", pages)
    assert modules, "the pages name some"
    for module in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_the_record_is_of_the_committed_figures():
    """S10: figures whose data, code and settings nobody can tell any more."""
    kept = ROOT / "docs/evaluation"
    (report,) = yaml.safe_load((kept / "dvc.lock").read_text())["stages"]["evaluate"]["outs"][:1]
    assert report["path"] == "reports/evaluation.json"
    assert report["md5"] == hashlib.md5((kept / "household.json").read_bytes()).hexdigest()


def test_readme_table_is_the_committed_evaluation():
    """A table typed by hand drifts from what was measured."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import update_tables
    finally:
        sys.path.pop(0)
    for page in update_tables.PAGES:
        assert update_tables.rendered(page) == page.read_text(), f"{page.name}: run `make tables`"
