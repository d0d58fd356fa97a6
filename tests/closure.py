"""The files that a stage's code is made of: its flow and everything of this repository that it imports."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOTS = {"rabtriever": ROOT / "src" / "rabtriever", "flows": ROOT / "flows"}

# What is imported but cannot change what a stage produces: what is logged, what is shown.
HARMLESS = {
    "flows/__init__.py",
    "flows/common.py",
    "src/rabtriever/ops/tracking.py",
    "src/rabtriever/core/progress.py",
}


def closure(script: str) -> set[str]:
    """Repository paths of a script and all it imports, directly or not, less the harmless ones."""
    seen: set[str] = set()
    waiting = [script]
    while waiting:
        name = waiting.pop()
        if name in seen or name in HARMLESS:
            continue
        seen.add(name)
        waiting += imports(ROOT / name)
    return seen


def imports(path: Path) -> list[str]:
    """Repository paths of the modules that a file imports, at its top or inside functions, or hands on as a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and ast.unparse(node.left) == "_PACKAGE":  # of a registered version
            found.append("rabtriever." + ast.literal_eval(node.right).removesuffix(".py").replace("/", "."))
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    paths = (_path(name) for name in found)
    return sorted({str(path.relative_to(ROOT)) for path in paths if path})


def _path(module: str) -> Path | None:
    package, _, rest = module.partition(".")
    if package not in ROOTS:
        return None
    path = ROOTS[package].joinpath(*rest.split(".")) if rest else ROOTS[package]
    found = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    return found if found.is_file() else None
