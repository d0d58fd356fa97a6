"""The reference says what the code says."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import sys
from types import ModuleType

import pytest

from tests.closure import ROOT

FORMATS = (ROOT / "docs/reference/formats.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/reference/generate.py; not by its name, which the embedded data's generator has as well."""
    spec = importlib.util.spec_from_file_location("reference_pages", ROOT / "docs/reference/generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_fresh(generate: ModuleType):
    """A setting or option that was renamed lives on in its description."""
    assert generate.stale() == [], "run: python docs/reference/generate.py"


def test_every_setting_is_described(generate: ModuleType):
    """A key of params.yaml that the page leaves out can only be guessed at."""
    from rabtriever.core.settings import flat, read_settings

    page = generate.pages()["settings.md"]
    for key in flat(read_settings(ROOT / "params.yaml")):
        assert f"`{key.split('.')[-1]}`" in page, key


def named(place: str) -> set[str]:
    """Names in the first column of the table below a line of formats.md that holds `place`."""
    rows: list[str] = []
    for line in FORMATS[FORMATS.index(place) :].splitlines():
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            break
    return {found for row in rows for found in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_manifest_keys():
    """A reader of manifests looks for a key by its old name."""
    from rabtriever.core.artifacts import Manifest

    assert named("has a `manifest.json`") == {field.name for field in dataclasses.fields(Manifest)}


def test_candidates_tensors():
    """A script of somebody else's reads candidates by the names of the page."""
    from rabtriever.training.teacher_labels import FILE, TeacherLabels

    fields = {field.name for field in dataclasses.fields(TeacherLabels)} - {"facts"}
    assert f"`{FILE}`" in FORMATS
    assert named(f"`{FILE}` holds") == fields | {"query_embeddings"}


def test_retriever_files():
    """A retriever folder that is checked by the page lacks a file, or has one that nobody knows."""
    written = set()
    for path in (ROOT / "src/rabtriever/search").glob("retriever*.py"):
        module, code = importlib.import_module(f"rabtriever.search.{path.stem}"), path.read_text(encoding="utf-8")
        written |= set(re.findall(r"target / \"([\w.]+)\"", code))
        written |= {getattr(module, constant) for constant in re.findall(r"target / (_?[A-Z]\w*)", code)}
    assert {one.rstrip("/") for one in named("One folder answers queries")} == written


def test_evaluation_keys():
    """A dashboard reads a key of evaluation.json that is gone."""
    from rabtriever.evaluation.gap import gap_report

    tree = ast.parse((ROOT / "src/rabtriever/evaluation/stage.py").read_text(encoding="utf-8"))
    assigned = (node for node in ast.walk(tree) if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict))
    (report,) = (node.value for node in assigned if ast.unparse(node.targets[0]) == "report")
    written = {ast.literal_eval(key) for key in report.keys if key is not None}  # None: what is taken in by **
    one = {name: {"q1": {"nDCG@10": 0.5}} for name in ("student", "teacher", "biencoder")}
    assert named("`evaluation.json` has these keys") == written | set(gap_report(one))


def test_data_layout():
    """A folder made by the page is refused by the reader."""
    from rabtriever.data.beir_io import MAX_GRADE, QRELS_HEADER

    assert " ".join(QRELS_HEADER) in FORMATS and f"from 0 to {MAX_GRADE}" in FORMATS
