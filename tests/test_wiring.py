"""The repository agrees with itself: import rules, stage dependencies, settings, README."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

from tests.closure import ROOT, closure, imports

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
SCRIPTS = {name: stage.get("do", stage)["cmd"].split()[2].replace(".", "/") + ".py" for name, stage in PIPELINE.items()}

# Layers from the bottom; a module imports from its own layer and those below.
LAYERS = [
    {"records", "artifacts", "params", "progress", "seeding", "ranking"},
    {"profiles", "sources"},
    {"overlay"},
    {"document_terms"},
    {"metrics", "mining", "predictor", "objectives", "supervision", "lexical", "plots", "promotion"},
    {
        "study",
        "study_specs",
        "study_results",
        "study_resampling",
        "study_differences",
        "study_ablations",
        "study_summary",
        "study_goals",
        "study_plots",
        "study_tables",
    },
    {"prompt", "padding", "backbone", "encoder", "checkpointing", "checks", "training", "optimizers", "scan"},
    {
        "preparation",
        "embeddings",
        "lora",
        "contrastive",
        "shortlist",
        "shortlist_training",
        "scorer",
        "inputs",
        "late_interaction",
        "averaging",
    },
    {"subset"},
    {"reranker"},
    {"teacher", "preference", "reading", "student", "distilled", "annotation", "distilled_biencoder", "fitting"},
    {"retriever", "tracking", "complexity", "polishing"},
    {"evaluation", "registry", "serving", "baselines"},
    {"cli"},
]
ONLY_IN = {
    "mlflow": {"tracking", "registry", "serving"},
    "great_expectations": {"checks"},
    "faiss": {"shortlist", "retriever"},
    "lightning": {"training", "tracking"},
    "prefect": set(),
    "dvc": set(),
    "flows": set(),
}


def modules() -> list[Path]:
    return [path for path in sorted((ROOT / "src/rabtriever").glob("*.py")) if path.stem != "__init__"]


def imported_packages(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_imports_go_one_way(path: Path):
    """A cycle or an upward import makes an edit of the top re-run the bottom."""
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert path.stem in level, f"{path.stem} is in no layer: name it in LAYERS"
    for name in imports(path):
        target = Path(name).stem
        if target not in ("__init__", path.stem):
            assert level[target] <= level[path.stem], f"{path.stem} imports {target} from a layer above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.stem)
def test_each_heavy_library_stays_behind_its_module(path: Path):
    """Mathematics that knows MLflow, Prefect or DVC cannot be tested or reused without them."""
    for package in imported_packages(path) & set(ONLY_IN):
        assert path.stem in ONLY_IN[package], f"{path.stem} imports {package}"


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_all_code_it_imports(stage: str):
    """A missing file makes `dvc repro` serve stale results; one too many re-runs hours of training for nothing."""
    deps = PIPELINE[stage].get("do", PIPELINE[stage])["deps"]
    code = {dep for dep in deps if dep.endswith(".py")}
    assert code == closure(SCRIPTS[stage])


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_names_every_section_it_reads(stage: str):
    """A section read but not listed can change without the stage running again."""
    read = set(re.findall(r'load_params\(\w+, "(\w+)"', (ROOT / SCRIPTS[stage]).read_text()))
    assert read == set(PIPELINE[stage].get("do", PIPELINE[stage]).get("params", []))


def test_every_section_loads_and_is_read_by_something(monkeypatch: pytest.MonkeyPatch):
    """A section nobody reads is a knob without effect; one that does not load stops the first run."""
    from flows._settings import SECTIONS, check_values

    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    found = {}
    for path in [*(ROOT / "flows").glob("*.py")]:
        found |= {section: cls for cls, section in re.findall(r'load_params\((\w+), "(\w+)"', path.read_text())}
    assert set(sections) - {"rounds", "final_round"} == set(found) == set(SECTIONS)
    assert {section: cls.__name__ for section, cls in SECTIONS.items()} == found
    monkeypatch.chdir(ROOT)
    check_values()


def test_a_version_asks_for_what_serving_imports(monkeypatch: pytest.MonkeyPatch):
    """A server that builds its environment from a version's list ends in an ImportError; one too many takes minutes."""
    from rabtriever.registry import _RUNTIME

    monkeypatch.setattr("tests.closure.HARMLESS", set())
    packages = {"faiss": "faiss-cpu", "yaml": "pyyaml"}
    found = set().union(*(imported_packages(ROOT / name) for name in closure("src/rabtriever/serving.py")))
    found -= {*sys.stdlib_module_names, "rabtriever"}
    assert {packages.get(name, name) for name in found} == set(_RUNTIME)


def test_readme_commands_exist():
    """A renamed target or flow leaves the newcomer with a command that fails."""
    pages = "\n".join((ROOT / name).read_text() for name in ("README.md", "docs/operations.md", "docs/results.md"))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", pages, re.MULTILINE)) <= targets
    modules = re.findall(r"python -m (flows\.\w+)", pages)
    assert modules, "the pages name some"
    for module in modules:
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file(), module


def test_readme_table_is_the_committed_evaluation():
    """A table typed by hand drifts from what was measured."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import update_tables
    finally:
        sys.path.pop(0)
    for page in update_tables.PAGES:
        assert update_tables.rendered(page) == page.read_text(), f"{page.name}: run `make tables`"
