"""The files that a stage's code is made of: its script and everything of this repository that it imports."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOTS = {"rabtriever": ROOT / "src" / "rabtriever", "flows": ROOT / "flows"}

# What is imported but cannot change what a stage produces: where things lie, what is logged, what is shown.
HARMLESS = {
    "flows/__init__.py",
    "flows/common.py",
    "src/rabtriever/__init__.py",
    "src/rabtriever/tracking.py",
    "src/rabtriever/progress.py",
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
            found.append(f"rabtriever.{ast.literal_eval(node.right).removesuffix('.py')}")
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
    path = ROOTS[package] / (rest.replace(".", "/") + ".py" if rest else "__init__.py")
    return path if path.is_file() else None
