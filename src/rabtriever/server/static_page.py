"""The page as one file: style, scripts and data inside, nothing outside; it opens without a server."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from rabtriever.server import page_cost, page_data, page_versions
from rabtriever.server.project import NothingHere, Project

FOLDER = Path(__file__).parent / "page"
# in an order in which each imports only from those before it
MODULES = (
    "dom",
    "source",
    "route",
    "chart",
    "columns",
    "label",
    "search",
    "losses",
    "versions",
    "data",
    "cost",
    "main",
)
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'"
)
_IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class) (\w+))", re.MULTILINE)


def page(project: Project) -> str:
    """The page of a finished run as HTML text.

    Raises:
        NothingHere: there is no finished run.
    """
    return _filled((FOLDER / "index.html").read_text(encoding="utf-8"), contents(project))


def contents(project: Project) -> dict[str, Any]:
    """What the views show, by name; a view that has nothing to show says why under `missing`.

    Raises:
        NothingHere: there is no finished run.
    """
    finished = project.finished()
    return {
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "overview": page_data.overview(finished),
        "losses": page_data.losses(finished),
        "rankings": page_data.all_rankings(finished),
        "versions": _or_missing(partial(page_versions.versions, project)),
        "data": page_data.data(finished, project),
        "cost": page_cost.cost(finished),
    }


def _or_missing(view: partial[dict[str, Any]]) -> dict[str, Any]:
    try:
        return view()
    except NothingHere as error:
        return {"missing": str(error)}


def _filled(template: str, data: dict[str, Any]) -> str:
    """The template with style, scripts and data in the places of the elements that name them."""
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no text can end the element
    parts = {
        '<link rel="stylesheet" href="static/page/page.css">': f"<style>\n{style}</style>",
        '<script type="module" src="static/page/main.js"></script>': (
            f'<script type="application/json" id="recorded">{text}</script>\n'
            f'<script type="module">\n{bundle()}</script>'
        ),
        '<meta charset="utf-8">': (
            f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        ),
    }
    for element, replacement in parts.items():
        before, found, after = template.partition(element)
        if not found:
            raise ValueError(f"index.html has no {element}, expected one to put the content of the file there")
        template = before + replacement + after
    return template


def bundle() -> str:
    """All modules as one script: each is a function that gives what it exports."""
    return "\n".join(_as_function(name, (FOLDER / f"{name}.js").read_text(encoding="utf-8")) for name in MODULES)


def _as_function(name: str, text: str) -> str:
    exported = ", ".join(_EXPORT.findall(text))
    body = _EXPORT.sub("", _IMPORT.sub(_as_constant, text))
    return f"const module_{name} = (() => {{\n{body}\nreturn {{ {exported} }};\n}})();"


def _as_constant(found: re.Match[str]) -> str:
    """`import { show as search } from "./search.js";` as `const { show: search } = module_search;`."""
    return f"const {found[1].replace(' as ', ': ')} = module_{found[2]};"
